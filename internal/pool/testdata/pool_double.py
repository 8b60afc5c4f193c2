"""Stands in for the SDK's worker: runs the Python text of each exec packet; ``reply`` answers on the stream."""

import os
import signal
import socket
import sys
import threading
import time


def main(exec_fd, stream_fd, channel_fd, arena_fd, info):
    packets = socket.socket(fileno=exec_fd)
    stream = socket.socket(fileno=stream_fd)
    channel = socket.socket(fileno=channel_fd)

    def reply(value):
        stream.sendall(f"{value}\n".encode())

    names = dict(globals(), **locals())
    while True:
        packet = packets.recv(131072)
        if not packet:
            return 0
        exec(packet.decode(), names)
