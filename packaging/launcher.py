#!python
"""Starts the ray command, which is a Go program in the ray package, without importing that package."""

import os
import sys

for folder in sys.path[1:]:  # [0] is this script's own folder
    binary = os.path.join(folder, "ray", "_bin", "ray")
    if os.access(binary, os.X_OK):
        os.execve(binary, [sys.argv[0], *sys.argv[1:]], dict(os.environ, GRAY_PYTHON=sys.executable))
sys.exit(
    "ray: no program ray/_bin/ray in any folder of %s's path. The installation is damaged: "
    "install the ray wheel again (pip install --force-reinstall), or run `make build` in a checkout." % sys.executable
)
