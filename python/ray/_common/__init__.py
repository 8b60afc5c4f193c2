"""Parts that Ray's libraries and their tests share."""
