"""The internal names of Ray that other packages import, as far as they mean something here. Thin, and not for new code."""
