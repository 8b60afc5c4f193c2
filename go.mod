module gray

go 1.26
