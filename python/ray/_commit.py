"""The commit that this package was built from, where the build recorded one."""

commit = "unknown"
