"""The node's shared memory as this process sees it: read-only views that pin, and fast copies into fresh extents."""

from __future__ import annotations

import mmap
import os

_COPY_FREE = 1 << 20  # bytes from which a copy lets other Python threads run
_COPY_WIDE = 64 << 20  # bytes from which several threads copy
_MADV_POPULATE_WRITE = 23
_GRAIN = 18  # bits of a stretch of the arena that counts as touched or not


class Arena:
    """A mapping of the whole arena. It lives until its last view does, connection or not."""

    def __init__(self, fd: int, size: int):
        """Map ``size`` bytes of descriptor ``fd``, and close ``fd``."""
        self.size = size
        try:
            self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        finally:
            os.close(fd)
        self._types = {}
        self._warm = bytearray((size >> _GRAIN) + 1)  # stretches that this process has written to

    def exporter(self, offset: int, size: int):
        """An object that owns a view of an extent: it lives while any view made from it does, and can be watched weakly."""
        import ctypes

        span = 1 << max(size - 1, 0).bit_length()
        if offset + span > self.size:
            span = size
        kind = self._types.get(span)
        if kind is None:
            kind = self._types[span] = ctypes.c_char * span  # few types: one a power of two
        return kind.from_buffer(self._map, offset)

    def look(self, offset: int, size: int) -> memoryview:
        """Bytes that are in place only for a while: nothing made of the view may outlive that."""
        return memoryview(self._map)[offset : offset + size].toreadonly()

    def write(self, offset: int, payload):
        """Copy a Payload into the extent at ``offset``."""
        if payload.size >= _COPY_FREE:
            first, end = offset >> _GRAIN, (offset + payload.size - 1 >> _GRAIN) + 1
            if self._warm.count(1, first, end) < end - first:  # asking for pages that are there costs as much as a copy
                _populate(self, offset, payload.size)
                self._warm[first:end] = b"\x01" * (end - first)
        with memoryview(self._map) as whole:
            at = 0
            for start, piece in payload.pieces:
                if start > at:
                    whole[offset + at : offset + start] = bytes(start - at)
                n = piece.nbytes if isinstance(piece, memoryview) else len(piece)
                if n >= _COPY_FREE:
                    _copy(self, offset + start, piece, n)
                else:
                    whole[offset + start : offset + start + n] = piece
                at = start + n


def _address(arena):
    import ctypes

    base = getattr(arena, "_base", None)
    if base is None:
        base = arena._base = ctypes.addressof(ctypes.c_char.from_buffer(arena._map))
    return base


_libc = None


def _c():
    global _libc
    if _libc is None:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        libc.memcpy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        libc.memcpy.restype = ctypes.c_void_p
        _libc = libc
    return _libc


def _populate(arena, offset, size):
    # Best effort: older kernels do not know the advice, and then the copy faults page by page.
    page = mmap.PAGESIZE
    start = offset & -page
    end = min((offset + size + page - 1) & -page, arena.size)
    _c().madvise(_address(arena) + start, end - start, _MADV_POPULATE_WRITE)


_py_buffer = None


def _buffer_class():
    global _py_buffer
    import ctypes

    class PyBuffer(ctypes.Structure):  # Py_buffer of CPython's C API
        _fields_ = (
            ("buf", ctypes.c_void_p),
            ("obj", ctypes.c_void_p),
            ("len", ctypes.c_ssize_t),
            ("itemsize", ctypes.c_ssize_t),
            ("readonly", ctypes.c_int),
            ("ndim", ctypes.c_int),
            ("format", ctypes.c_char_p),
            ("shape", ctypes.c_void_p),
            ("strides", ctypes.c_void_p),
            ("suboffsets", ctypes.c_void_p),
            ("internal", ctypes.c_void_p),
        )

    api = ctypes.pythonapi
    api.PyObject_GetBuffer.argtypes = (ctypes.py_object, ctypes.POINTER(PyBuffer), ctypes.c_int)
    api.PyBuffer_Release.argtypes = (ctypes.POINTER(PyBuffer),)
    api.PyBuffer_Release.restype = None
    _py_buffer = PyBuffer
    return PyBuffer


def _source_address(piece):
    import ctypes

    view = (_py_buffer or _buffer_class())()
    api = ctypes.pythonapi
    api.PyObject_GetBuffer(piece, view, 0)
    address = view.buf
    api.PyBuffer_Release(view)
    return address  # valid while the caller holds piece


def _copy(arena, offset, piece, size):
    target = _address(arena) + offset
    source = _source_address(piece)
    copy = _c().memcpy
    workers = min(4, os.cpu_count() or 1) if size >= _COPY_WIDE else 1
    if workers == 1:
        copy(target, source, size)
        return
    from concurrent.futures import ThreadPoolExecutor

    step = (size // workers + 4095) & -4096
    with ThreadPoolExecutor(workers) as pool:
        parts = [pool.submit(copy, target + at, source + at, min(step, size - at)) for at in range(0, size, step)]
        for part in parts:
            part.result()
