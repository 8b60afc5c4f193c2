"""Preloading this never ends."""

import signal

while True:
    signal.pause()
