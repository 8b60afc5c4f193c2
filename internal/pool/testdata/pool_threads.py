"""Preloading this leaves a thread running."""

import threading

threading.Thread(target=threading.Event().wait, daemon=True, name="left-running").start()
