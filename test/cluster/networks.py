"""Machines of a test's own: network namespaces on one switch, what passes by on it, and cables that can be pulled."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time

CAPTURE = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 26)
s.bind((sys.argv[1], 0))
print("on", flush=True)
with open(sys.argv[2], "wb", buffering=0) as f:
    while True:
        f.write(s.recv(1 << 17))
"""


def ip(*args):
    """Run ``ip``."""
    done = subprocess.run(["ip", *args], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(args)}: {done.stderr.strip()}")


class Network:
    """A switch with machines at 10.77.0.1, .2, …; each is a network namespace."""

    def __init__(self, count):
        self._tag = f"gray{os.getpid()}"
        self.switch = f"{self._tag}s"
        self.machines = [f"{self._tag}m{k}" for k in range(1, count + 1)]
        self.addresses = [f"10.77.0.{k}" for k in range(1, count + 1)]
        self._captures = []
        try:
            ip("netns", "add", self.switch)
            ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
            ip("-n", self.switch, "link", "set", "br0", "up")
            for k, name in enumerate(self.machines):
                ip("netns", "add", name)
                ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"p{k}", "netns", self.switch)
                ip("-n", self.switch, "link", "set", f"p{k}", "master", "br0", "up")
                ip("-n", name, "addr", "add", f"{self.addresses[k]}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "eth0", "up")
                ip("-n", name, "link", "set", "lo", "up")
        except OSError:
            self.close()
            raise

    def capture(self, k, path):
        """Keep all that passes by at machine ``k`` in a file, until :meth:`close`."""
        argv = ["ip", "netns", "exec", self.switch, sys.executable, "-c", CAPTURE, f"p{k}", str(path)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self._captures.append(process)
        assert process.stdout.readline() == "on\n"
        return pathlib.Path(path)

    def cut(self, k, seconds):
        """Pull machine ``k``'s cable for a while."""
        ip("-n", self.switch, "link", "set", f"p{k}", "down")
        time.sleep(seconds)
        ip("-n", self.switch, "link", "set", f"p{k}", "up")

    def close(self):
        """Remove all of it."""
        for process in self._captures:
            process.kill()
            process.wait()
            process.stdout.close()
        for name in (*self.machines, self.switch):
            with contextlib.suppress(OSError):  # a start that failed has not made all of them
                ip("netns", "del", name)
