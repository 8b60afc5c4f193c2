"""A node daemon in one Python thread, for tests of the SDK's engine-facing part.

It speaks docs/protocol.md to drivers and to real worker processes, keeps a ledger of deliveries and pins, and has no
scheduling, no other nodes and no recovery.
"""

import mmap
import os
import selectors
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter, deque

import msgpack

from ray._core import greeting, wire

TOKEN = b"t" * 32
JOB = b"\x01\x00\x00\x00"
ARENA = 1 << 31
INLINE = 102400


class Conn:
    def __init__(self, sock, client=None, kind="new", chan=None):
        self.sock, self.client, self.kind, self.chan = sock, client, kind, chan
        self.buf = bytearray()
        self.out = bytearray()
        self.ids = {}


class Peer:
    """One client: a driver or a worker."""

    def __init__(self, name):
        self.name = name
        self.session = os.urandom(16)
        self.channels = {}
        self.templates = {}
        self.deliveries = Counter()
        self.pins = Counter()
        self.asks = {}  # chan -> open GET or WAIT
        self.watch = {}  # chan -> Counter of ids
        self.released = []
        self.received = 0
        self.worker = None


class Object:
    def __init__(self):
        self.ready = False
        self.status = 0
        self.contained = []
        self.data = None
        self.offset = None
        self.size = 0


class Worker:
    def __init__(self, peer, sock, process):
        self.peer, self.sock, self.process = peer, sock, process
        self.task = None
        self.known = set()


class FakeDaemon:
    def __init__(self, directory, workers=1, credit=1 << 30, python=sys.executable, hold=False):
        self.path = os.path.join(str(directory), "sockets", "raylet")
        os.makedirs(os.path.dirname(self.path))
        self.directory = str(directory)
        self.credit = credit
        self.python = python
        self.arena_fd = os.memfd_create("arena")
        os.ftruncate(self.arena_fd, ARENA)
        self.arena = mmap.mmap(self.arena_fd, ARENA)
        self.top = 4096
        self.free = {}
        self.objects = {}
        self.creating = {}
        self.known = set()  # ids that somebody held and gave back
        self.peers = {}
        self.frames = []  # (peer name, kind, body) of every frame, when recording
        self.record = False
        self.hold_credit = hold
        self.tasks = deque()
        self.blocked_tasks = []
        self.needed = Counter()  # ids that unfinished tasks depend on
        self.counter = 1 << 40
        self.template_count = 0
        self.executed = 0
        self.errors = []
        self.next_worker = 0
        self.sel = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(100)
        self.sel.register(self.listener, selectors.EVENT_READ, None)
        self.wake_r, self.wake_w = os.pipe()
        self.sel.register(self.wake_r, selectors.EVENT_READ, "wake")
        self.calls = deque()
        self.stopping = False
        self.workers = []
        self.driver = None
        self.want = workers
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    # from tests

    def on_loop(self, fn):
        """Run fn on the daemon's thread and return what it returns."""
        done = threading.Event()
        box = []

        def call():
            try:
                box.append(fn())
            finally:
                done.set()

        self.calls.append(call)
        os.write(self.wake_w, b"x")
        assert done.wait(10), "the fake daemon is stuck"
        return box[0]

    def close(self):
        self.stopping = True
        os.write(self.wake_w, b"x")
        self.thread.join(10)
        for w in self.workers:
            w.sock.close()
        for key in list(self.sel.get_map().values()):
            if isinstance(key.data, Conn):
                key.data.sock.close()
        for w in self.workers:
            w.process.wait(30)
        self.listener.close()
        self.sel.close()
        os.close(self.wake_r)
        os.close(self.wake_w)
        os.close(self.arena_fd)
        assert not self.errors, self.errors

    # the loop

    def run(self):
        while not self.stopping:
            for key, events in self.sel.select():
                try:
                    if key.data is None:
                        sock, _ = self.listener.accept()
                        sock.setblocking(False)
                        self.watch_conn(Conn(sock))
                    elif key.data == "wake":
                        os.read(self.wake_r, 1000)
                        while self.calls:
                            self.calls.popleft()()
                    else:
                        if events & selectors.EVENT_WRITE:
                            self.write(key.data)
                        if events & selectors.EVENT_READ:
                            self.read(key.data)
                except Exception as e:
                    import traceback

                    traceback.print_exc()
                    self.errors.append(repr(e))
            self.dispatch()

    def watch_conn(self, conn):
        self.sel.register(conn.sock, selectors.EVENT_READ, conn)

    def drop(self, conn):
        try:
            self.sel.unregister(conn.sock)
        except (KeyError, ValueError):
            pass
        conn.sock.close()

    def read(self, conn):
        try:
            data = conn.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop(conn)
            return
        conn.buf += data
        buf = conn.buf
        at = 0
        while len(buf) - at >= 4:
            length = struct.unpack_from("<I", buf, at)[0]
            assert 1 <= length <= wire.MAX_FRAME, f"length {length} from {conn.kind}"
            if len(buf) - at < 4 + length:
                break
            self.frame(conn, buf[at + 4], bytes(buf[at + 5 : at + 4 + length]))
            at += 4 + length
        del buf[:at]

    def write(self, conn):
        try:
            n = conn.sock.send(conn.out)
        except BlockingIOError:
            return
        except OSError:
            self.drop(conn)
            return
        del conn.out[:n]
        if not conn.out:
            self.sel.modify(conn.sock, selectors.EVENT_READ, conn)

    def send(self, conn, data):
        if conn.sock.fileno() < 0:
            return
        if not conn.out:
            try:
                n = conn.sock.send(data)
            except BlockingIOError:
                n = 0
            except OSError:
                return
            if n == len(data):
                return
            data = data[n:]
            self.sel.modify(conn.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, conn)
        conn.out += data

    # greetings

    def welcome(self, peer):
        first = self.counter
        self.counter += 100000
        return {
            "session": peer.session, "job_id": JOB, "node_id": b"n" * 28, "node_ip": "127.0.0.1",
            "gcs_address": "127.0.0.1:1", "session_dir": self.directory, "session_name": "session_x",
            "namespace": "ns", "driver_task": b"\xff" * 20 + JOB, "worker_id": JOB + b"\xff" * 24,
            "arena_size": ARENA, "inline_max": INLINE, "ids": [first, 100000], "credit": self.credit,
            "dashboard_url": "",
        }  # fmt: skip

    def hello(self, conn, body):
        assert body[:4] == b"GRAY"
        fields = msgpack.unpackb(body[6:])
        version = struct.unpack_from("<H", body, 4)[0]
        if version != 1 or fields["cred"] not in (
            greeting.credential(TOKEN, fields["nonce"]),
            *(greeting.credential(p.session, fields["nonce"]) for p in self.peers.values()),
        ):
            conn.sock.send(wire.frame(wire.REFUSED, msgpack.packb({"kind": "auth", "error": "wrong token"})))
            self.drop(conn)
            return
        if fields["role"] == "driver":
            peer = Peer("driver")
            self.driver = peer
            self.peers[peer.session] = peer
            conn.client, conn.kind = peer, "stream"
            self.job = fields["job"]
            data = wire.frame(wire.WELCOME, msgpack.packb(self.welcome(peer)))
            socket.send_fds(conn.sock, [data], [self.arena_fd]) if hasattr(socket, "send_fds") else conn.sock.sendmsg(
                [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", self.arena_fd))]
            )
            while len(self.workers) < self.want:
                self.spawn()
        else:
            peer = self.peers[fields["session"]]
            conn.client, conn.kind, conn.chan = peer, "channel", fields["chan"]
            peer.channels[fields["chan"]] = conn
            self.send(conn, wire.frame(wire.WELCOME, msgpack.packb({})))

    def spawn(self):
        exec_a, exec_b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stream_a, stream_b = socket.socketpair()
        chan_a, chan_b = socket.socketpair()
        arena = os.dup(self.arena_fd)
        fds = (exec_b.fileno(), stream_b.fileno(), chan_b.fileno(), arena)
        self.next_worker += 1
        process = subprocess.Popen(
            [self.python, "-c", "import sys; from ray._core.worker import main; sys.exit(main(*map(int, sys.argv[1:5]), {}))",
             *map(str, fds)],
            pass_fds=fds, env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(__file__)))},
        )  # fmt: skip
        for s in (exec_b, stream_b, chan_b):
            s.close()
        os.close(arena)
        peer = Peer(f"worker{self.next_worker}")
        self.peers[peer.session] = peer
        for sock, kind, chan in ((stream_a, "stream", None), (chan_a, "channel", 0)):
            sock.setblocking(False)
            conn = Conn(sock, peer, kind, chan)
            if chan is not None:
                peer.channels[chan] = conn
            self.watch_conn(conn)
        worker = peer.worker = Worker(peer, exec_a, process)
        setup = {**self.welcome(peer), "job": self.job, "env": {}, "accelerators": {}, "resources": {"CPU": 10000}}
        exec_a.send(wire.frame(wire.SETUP, msgpack.packb(setup)))
        self.workers.append(worker)
        return worker

    # objects

    def object(self, oid):
        obj = self.objects.get(oid)
        if obj is None:
            obj = self.objects[oid] = Object()
        return obj

    def allocate(self, size):
        size = (size + 63) & -64
        spare = self.free.get(size)
        if spare:
            return spare.pop()
        at = self.top
        self.top += size
        assert self.top <= ARENA
        return at

    def free_unused(self, oid):
        obj = self.objects.get(oid)
        if obj is None or not obj.offset or self.needed[oid] > 0:
            return
        if not any(p.deliveries[oid] or p.pins[oid] for p in self.peers.values()):
            self.free.setdefault((obj.size + 63) & -64, []).append(obj.offset)
            del self.objects[oid]

    def finish(self, oid, status, contained, data=None, offset=None, size=0):
        obj = self.object(oid)
        obj.status, obj.contained, obj.data, obj.offset = status, contained, data, offset
        obj.size = len(data) if data is not None else size
        obj.ready = True
        for peer in list(self.peers.values()):
            for chan in list(peer.asks):
                self.answer(peer, chan)
        still = []
        for task in self.blocked_tasks:
            (self.tasks if self.runnable(task) else still).append(task)
        self.blocked_tasks = still

    def runnable(self, task):
        return all(self.object(d).ready for d in task["deps"])

    def value_frame(self, peer, req, oid):
        obj = self.objects[oid]
        for c in obj.contained:
            peer.deliveries[c] += 1
        body = struct.pack("<I", req) + oid + bytes([obj.status])
        ahead, listed = wire.split_contained(oid, obj.contained, wire.MAX_FRAME - 200 - (obj.size if obj.data else 0))
        if obj.data is not None:
            body += b"\0" + struct.pack("<I", len(listed)) + b"".join(listed) + obj.data
        else:
            peer.pins[oid] += 1
            body += b"\1" + struct.pack("<I", len(listed)) + b"".join(listed) + struct.pack("<QQ", obj.offset, obj.size)
        return ahead + wire.frame(wire.VALUE, body)

    def answer(self, peer, chan):
        ask = peer.asks[chan]
        conn = peer.channels[chan]
        if ask["kind"] == "get":
            out = b""
            for oid in list(ask["ids"]):
                if self.object(oid).ready:
                    ask["ids"].remove(oid) if len(ask["ids"]) < 50 else ask["ids"].__delitem__(ask["ids"].index(oid))
                    out += self.value_frame(peer, ask["req"], oid)
            if not ask["ids"]:
                out += wire.frame(wire.DONE, struct.pack("<IB", ask["req"], 0))
                del peer.asks[chan]
            if out:
                self.send(conn, out)
        else:
            watch = peer.watch[chan]
            ready = [oid for oid in watch if self.object(oid).ready]
            if len(ready) >= ask["need"]:
                ids = [oid for oid in ready for _ in range(watch.pop(oid))]
                self.send(conn, wire.frame(wire.READY, struct.pack("<II", ask["req"], len(ids)) + b"".join(ids)))
                del peer.asks[chan]

    def cancel(self, peer, chan, req=None):
        ask = peer.asks.get(chan)
        if ask is not None and (req is None or ask["req"] == req):
            del peer.asks[chan]
            self.send(peer.channels[chan], wire.frame(wire.DONE, struct.pack("<IB", ask["req"], 1)))

    # frames of clients

    def frame(self, conn, kind, body):
        if conn.kind == "new":
            assert kind == wire.HELLO
            self.hello(conn, body)
            return
        assert conn.kind == "stream", conn.kind
        peer = conn.client
        if self.record:
            self.frames.append((peer.name, kind, body))

        def u32(at):
            return struct.unpack_from("<I", body, at)[0]

        early = conn.ids
        if kind == wire.TEMPLATE:
            no = u32(0)
            self.template_count += 1
            peer.templates[no] = (self.template_count, body[4:])
        elif kind == wire.TEMPLATE_DROP:
            del peer.templates[u32(0)]
        elif kind == wire.IDS:
            early.setdefault(body[:28], []).extend(wire.split_ids(body[28:]))
        elif kind == wire.SUBMIT:
            peer.received += len(body) + 5 + 384  # docs/protocol.md
            no, unique, num_returns, flags, n_deps, n_contained, n_over = struct.unpack_from("<I8sIHIII", body)
            ids = wire.split_ids(body[30 : 30 + 28 * (n_deps + n_contained)])
            rest = body[30 + 28 * (n_deps + n_contained) :]
            stem = unique + b"\xff" * 12 + JOB
            for i in range(num_returns):
                peer.deliveries[stem + struct.pack("<I", i + 1)] += 1
            task = {
                "template": peer.templates[no], "unique": unique, "n": num_returns, "flags": flags, "deps": ids[:n_deps],
                "contained": early.pop(stem + b"\1\0\0\0", []) + ids[n_deps:], "over": rest[:n_over],
                "args": rest[n_over:], "attempt": 0,
            }  # fmt: skip
            self.needed.update(task["deps"])
            (self.tasks if self.runnable(task) else self.blocked_tasks).append(task)
        elif kind == wire.ACTOR:  # noted; nothing runs
            peer.received += len(body) + 5
            chan, req, _, unique = struct.unpack_from("<III8s", body)
            actor = unique + bytes(4) + JOB
            peer.deliveries[unique + actor + b"\1\0\0\0"] += 1
            if req:
                reply = {"created": True, "actor_id": actor, "class_name": "A", "meta": b"", "namespace": "ns"}
                self.send(peer.channels[chan], wire.frame(wire.REPLY, struct.pack("<I", req) + msgpack.packb(reply)))
        elif kind == wire.ACTOR_CALL:
            peer.received += len(body) + 5 + 384  # docs/protocol.md
            assert struct.unpack_from("<I", body)[0] in peer.templates
            unique, actor, num_returns = struct.unpack_from("<8s16sI", body, 4)
            for i in range(num_returns):
                peer.deliveries[unique + actor + struct.pack("<I", i + 1)] += 1
        elif kind == wire.PUT:
            peer.received += len(body) + 5
            oid, status, n = struct.unpack_from("<28sBI", body)
            peer.deliveries[oid] += 1
            contained = early.pop(oid, []) + wire.split_ids(body[33 : 33 + 28 * n])
            self.finish(oid, status, contained, body[33 + 28 * n :])
        elif kind == wire.CREATE:
            chan, req, oid, size = struct.unpack_from("<II28sQ", body)
            peer.deliveries[oid] += 1
            offset = self.allocate(size)
            self.creating[oid] = (offset, size)
            self.send(peer.channels[chan], wire.frame(wire.CREATED, struct.pack("<IQ", req, offset)))
        elif kind == wire.SEAL:
            oid, status, n = struct.unpack_from("<28sBI", body)
            offset, size = self.creating.pop(oid)
            self.finish(oid, status, early.pop(oid, []) + wire.split_ids(body[33:]), None, offset, size)
        elif kind == wire.ABORT:
            self.creating.pop(body, None)
        elif kind == wire.GET:
            chan, req, _, n = struct.unpack_from("<IIBI", body)
            self.cancel(peer, chan)
            peer.asks[chan] = {"kind": "get", "req": req, "ids": list(dict.fromkeys(wire.split_ids(body[13:])))}
            assert len(body) == 13 + 28 * n
            self.answer(peer, chan)
        elif kind == wire.WAIT:
            chan, req, need, _, n = struct.unpack_from("<IIIBI", body)
            self.cancel(peer, chan)
            watch = peer.watch.setdefault(chan, Counter())
            watch.update(wire.split_ids(body[17:]))
            peer.asks[chan] = {"kind": "wait", "req": req, "need": need}
            self.answer(peer, chan)
        elif kind == wire.CANCEL_REQ:
            self.cancel(peer, u32(0), u32(4))
        elif kind in (wire.RELEASE, wire.UNPIN):
            for i in range(u32(0)):
                oid, n = struct.unpack_from("<28sI", body, 4 + 32 * i)
                ledger = peer.deliveries if kind == wire.RELEASE else peer.pins
                if oid not in ledger and kind == wire.RELEASE and oid not in self.objects and oid not in self.known:
                    continue  # its frame was never sent
                ledger[oid] -= n
                assert ledger[oid] >= 0, f"{peer.name} gave back more than it got of {oid.hex()}: {ledger[oid]}"
                if not ledger[oid]:
                    del ledger[oid]
                    self.known.add(oid)
                self.free_unused(oid)
        elif kind == wire.RESULT:
            unique, _, outcome, n = struct.unpack_from("<8sIBI", body)
            worker = peer.worker
            assert worker.task and worker.task["unique"] == unique
            self.needed.subtract(worker.task["deps"])
            for oid in worker.task["deps"]:
                self.free_unused(oid)
            worker.task, at = None, 17
            self.executed += 1
            for i in range(n):
                status, where, k = struct.unpack_from("<BBI", body, at)
                oid = unique + b"\xff" * 12 + JOB + struct.pack("<I", i + 1)
                contained = early.pop(oid, []) + wire.split_ids(body[at + 6 : at + 6 + 28 * k])
                at += 6 + 28 * k
                size = struct.unpack_from("<Q", body, at)[0]
                at += 8
                if where == 0:
                    self.finish(oid, status, contained, body[at : at + size])
                    at += size
                else:
                    self.finish(oid, status, contained, None, *self.creating.pop(oid))
                    peer.deliveries[oid] -= 1
            assert at == len(body)
            if outcome == 3:
                self.workers.remove(worker)
                worker.process.wait(30)
                self.spawn()
        elif kind == wire.TASK_ERROR:  # for lists; nothing lists here
            assert peer.worker.task and peer.worker.task["unique"] == body[:8]
        elif kind == wire.CALL:
            chan, req = struct.unpack_from("<II", body)
            fields = msgpack.unpackb(body[8:], strict_map_key=False)
            self.call(peer, chan, req, fields)
        elif kind == wire.CREDIT:
            chan, req, total = struct.unpack_from("<IIQ", body)
            assert total >= peer.received, (total, peer.received)
            reply = msgpack.packb({"limit": total + self.credit})
            self.send(peer.channels[chan], wire.frame(wire.REPLY, struct.pack("<I", req) + reply))
        elif kind == wire.CHANNEL_CLOSE:
            chan = peer.channels.pop(u32(0))
            peer.asks.pop(u32(0), None)
            self.drop(chan)
        else:
            raise AssertionError(f"frame of kind {kind:#x}")

    def call(self, peer, chan, req, fields):
        kind, answer = wire.REPLY, {}
        if fields["m"] == "ids":
            answer = {"ids": [self.counter, 100000]}
            self.counter += 100000
        elif fields["m"] == "why":
            answer = {"why": [{"id": i, "state": "pending", "reason": "no worker is free"} for i in fields["ids"]]}
        elif fields["m"] == "echo":
            answer = fields
        else:
            kind, answer = wire.ERROR, {"kind": "NOT_IMPLEMENTED", "error": f"{fields['m']} is not there"}
        self.send(peer.channels[chan], wire.frame(kind, struct.pack("<I", req) + msgpack.packb(answer)))

    # workers

    def dispatch(self):
        for worker in self.workers:
            if not self.tasks:
                return
            if worker.task is None:
                self.start(worker, self.tasks.popleft())

    def start(self, worker, task):
        no, template = task["template"]
        packet = b""
        if no not in worker.known:
            worker.known.add(no)
            packet = wire.frame(wire.X_TEMPLATE, struct.pack("<I", no) + template)
        deps = b""
        peer = worker.peer
        for oid in task["deps"]:
            obj = self.objects[oid]
            for c in obj.contained:
                peer.deliveries[c] += 1
            deps += (
                oid + struct.pack("<BBI", obj.status, obj.data is None, len(obj.contained)) + b"".join(obj.contained)
            )
            deps += struct.pack("<Q", obj.size)
            if obj.data is not None:
                deps += obj.data
            else:
                peer.pins[oid] += 1
                deps += struct.pack("<Q", obj.offset)
        for c in task["contained"]:
            peer.deliveries[c] += 1
        body = (
            struct.pack("<8sI4sIIHII", task["unique"], task["attempt"], JOB, no, task["n"], task["flags"], len(task["deps"]),
                        len(task["over"])) + task["over"] + deps
            + struct.pack("<I", len(task["contained"])) + b"".join(task["contained"]) + task["args"]
        )  # fmt: skip
        if len(packet) + len(body) + 5 > wire.MAX_PACKET:
            at = self.allocate(len(body))
            self.arena[at : at + len(body)] = body
            packet += wire.frame(wire.EXECUTE_AT, struct.pack("<QQ", at, len(body)))
        else:
            packet += wire.frame(wire.EXECUTE, body)
        worker.task = task
        worker.sock.send(packet)
