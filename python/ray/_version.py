"""The version, stated here and nowhere else: the wheel and the Go binary both read this file."""

version = "2.60.0+gray0.1.0"
