"""Preloading this fails with an error whose text is no UTF-8."""

raise RuntimeError("no \udc80 luck")
