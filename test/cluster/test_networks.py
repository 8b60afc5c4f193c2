"""Clusters over a network: TLS, tokens, cables that are pulled. Each machine is a network namespace."""

import os
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from machines import children, line, tell, until
from networks import Network

pytestmark = pytest.mark.needs_root


@pytest.fixture
def net():
    if os.getuid() != 0:
        pytest.skip("network namespaces need root")
    try:
        made = Network(3)
    except OSError as e:
        pytest.skip(f"this machine makes no network namespaces: {e}")
    yield made
    made.close()


class Site:
    """A head on machine 0, and what it takes to join it from the others."""

    def __init__(self, net, homes):
        self.net = net
        self.homes = [homes(f"m{k}", netns=name) for k, name in enumerate(net.machines)]
        self.head = self.homes[0].head(ip=net.addresses[0])
        self.token = self.homes[0].ray("get-auth-token").stdout.strip().splitlines()[-1]

    def join(self, k, *args, token=None, **kwargs):
        env = {"RAY_AUTH_TOKEN": token or self.token}
        return self.homes[k].node(self.head["gcs_address"], *args, ip=None, env=env, **kwargs)


WORK = """
    import sys, time, ray
    ray.init("auto", log_to_driver=False)
    @ray.remote(resources={"far": 0.01}, num_cpus=0.01)
    def far(x):
        return b"MARK-BACK" * 30000, len(x), ray.util.get_node_ip_address()
    for _ in sys.stdin:
        value = b"MARK-OUT-" * 30000
        back, n, ip = ray.get(far.remote(ray.put(value)))
        small, m, _ = ray.get(far.remote(b"MARK-OUT-SMALL"))
        print(back == small == b"MARK-BACK" * 30000, n, m, ip, flush=True)
"""


def test_nothing_readable_on_the_wire(net, homes, tmp_path):
    """Neither the token nor values; and the token is nowhere else where it does not belong."""
    site = Site(net, homes)
    seen = net.capture(0, tmp_path / "wire")
    node = site.join(1, "--resources", '{"far": 1}')
    assert node["node_ip"] == net.addresses[1]  # found by itself
    driver = site.homes[0].driver(WORK)
    tell(driver)
    assert line(driver) == f"True 270000 14 {net.addresses[1]}"
    status = site.homes[0].ray("status", "-v").stdout
    assert status.count(" 1 node_") == 2, status
    until(lambda: seen.stat().st_size > 500_000, "what was captured")
    wire = seen.read_bytes()
    for secret in (
        site.token.encode(),
        bytes.fromhex(site.token) if len(site.token) % 2 == 0 else b"MARK",
        b"MARK-OUT",
        b"MARK-BACK",
        b"Authorization",
        b"GRAY",
    ):
        assert secret not in wire, secret
    assert b"\x16\x03\x01" in wire and b"\x17\x03\x03" in wire  # TLS handshakes and records
    token = site.token.encode()
    assert site.token not in status
    for pid in {site.head["pid"], node["pid"], *children(site.head["pid"]), *children(node["pid"])}:
        assert token not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        environ = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        # A daemon's own first environment is the user's, who may have put the token there.
        assert token not in environ or pid == node["pid"]
    for home in site.homes:
        for path in home.root.rglob("*"):
            if path.is_file() and path.name != "auth_token":
                assert token not in path.read_bytes(), path


def test_no_core_dump_of_a_daemon(net, homes):
    """Its memory is no file's to be: the process is not dumpable, so nothing of its user's may read it, either."""
    site = Site(net, homes)
    st = os.stat(f"/proc/{site.head['pid']}/mem")
    assert (st.st_uid, st.st_gid) == (0, 0)
    code = f"import ctypes; print(open('/proc/{site.head['pid']}/status').read())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "CoreDumping:\t0" in out


def test_wrong_token(net, homes):
    site = Site(net, homes)
    for token, words in (("0" * 64, "token"), ("", "token")):
        began = time.monotonic()
        env = {"RAY_AUTH_TOKEN": token} if token else {}
        done = site.homes[2].ray("start", f"--address={site.head['gcs_address']}", "--num-cpus=1", env=env, check=False)
        assert done.returncode != 0 and time.monotonic() - began < 5
        assert words in done.stdout and "Traceback" not in done.stdout and "panic" not in done.stdout, done.stdout
        assert site.token not in done.stdout and (not token or token not in done.stdout)
    assert not site.homes[2].nodes()


@pytest.mark.slow
def test_no_head_there(net, homes):
    """Nobody at the address, nobody at the port."""
    home = homes("m", netns=net.machines[2])
    for address in (f"{net.addresses[0]}:6379", "10.77.0.99:6379"):
        began = time.monotonic()
        done = home.ray("start", f"--address={address}", env={"RAY_AUTH_TOKEN": "0" * 64}, check=False)
        took = time.monotonic() - began
        assert done.returncode != 0 and address in done.stdout and took < 5.5, (took, done.stdout)


def test_strangers_from_the_network(net, homes):
    """From another machine only TLS is spoken; nothing else is answered a byte, and TLS without a credential is told 401."""
    site = Site(net, homes)
    site.join(1)
    code = """
        import socket, ssl, sys
        for port in sys.argv[2:]:
            for text in (b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n", b"POST /gray/proof HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n\\r\\n{}",
                         b"PING\\r\\n", b"SSH-2.0-x\\r\\n", b"\\x16\\x03\\x01\\x00\\x05hello", b"\\xff" * 40):
                with socket.create_connection((sys.argv[1], int(port)), 20) as s:
                    try:
                        s.sendall(text)
                        s.shutdown(socket.SHUT_WR)
                        print(port, text[:8], s.recv(100))
                    except OSError:
                        print(port, text[:8], b"")
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            for bearer in ("", "Authorization: Bearer wrong\\r\\n"):
                with socket.create_connection((sys.argv[1], int(port)), 20) as raw, context.wrap_socket(raw) as s:
                    s.sendall(f"GET /api/cluster_status HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n{bearer}\\r\\n".encode())
                    print(port, s.version(), s.recv(1000).split(b"\\r\\n")[0])
        """
    ports = [port for host, port in _listening(site.head["pid"]) if host == net.addresses[0]]
    agent = [p for p in ports if _speaks_plain(net, net.addresses[0], p)]
    assert len(ports) == 4 and len(agent) == 1, (ports, agent)  # joining, links, clients far away; and the agent
    ports = [p for p in ports if p not in agent]
    out = site.homes[2].python(code, net.addresses[0], *ports)
    for row in out.splitlines():
        if "TLSv1.3" in row:
            assert "401 " in row or "403 " in row, row
        else:
            assert row.endswith(" b''"), row
    assert out.count("TLSv1.3") == 2 * len(ports) and out.count("401 ") == out.count("403 ") == len(ports), out


def test_health_on_localhost(net, homes):
    """Probes ask the agent on the node's address or, from beside it, on localhost; on no other address is anything open."""
    site = Site(net, homes)
    node = site.join(1)
    for k, daemon in enumerate((site.head, node)):
        found = _listening(daemon["pid"])
        assert {host for host, _ in found} <= {net.addresses[k], "127.0.0.1"}, found
        both = [
            p for h, p in found if h == "127.0.0.1" and (net.addresses[k], p) in found
        ]  # the head's for ray://, too
        assert len(both) == (1 if k else 2), found
        (agent,) = [p for p in both if _speaks_plain(net, net.addresses[k], p)]
        assert _speaks_plain(net, "localhost", agent, machine=k) and _speaks_plain(net, "127.0.0.1", agent, machine=k)
        assert not _speaks_plain(net, "localhost", agent, machine=2)


def _listening(pid):
    """The IPv4 addresses and ports that are open in a process's network."""
    found = []
    with open(f"/proc/{pid}/net/tcp") as f:
        for row in f.read().splitlines()[1:]:
            fields = row.split()
            host, port = fields[1].split(":")
            if fields[3] == "0A":
                found.append((socket.inet_ntoa(struct.pack("<I", int(host, 16))), int(port, 16)))
    return found


def _speaks_plain(net, host, port, machine=2):
    """Whether a port answers a health route without TLS: the agent's."""
    code = (
        "import sys, urllib.request\n"
        "try: print(urllib.request.urlopen(f'http://{sys.argv[1]}:{sys.argv[2]}/api/local_raylet_healthz', timeout=20).status)\n"
        "except OSError as e: print(e)"
    )
    argv = ["ip", "netns", "exec", net.machines[machine], sys.executable, "-c", code, host, str(port)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip() == "200"


@pytest.mark.slow
def test_pulled_cable(net, homes):
    """3 s without a link: no task is lost or run twice, and objects go over again."""
    site = Site(net, homes)
    site.join(1, "--resources", '{"far": 1}', cpus=2)
    driver = site.homes[0].driver("""
        import sys, time, ray
        ray.init("auto", log_to_driver=False)
        @ray.remote(resources={"far": 0.01}, num_cpus=0.5, max_retries=0)
        def slow(k, value):
            time.sleep(0.02)
            return k, bytes(150_000), len(value)
        print("ready", flush=True)
        sys.stdin.readline()
        value = ray.put(bytes(3_000_000))
        refs = [slow.remote(k, value) for k in range(600)]
        print("going", flush=True)
        got = ray.get(refs)
        print([k for k, _, _ in got] == list(range(600)), {len(b) for _, b, _ in got}, {n for _, _, n in got}, flush=True)
        big = ray.put(bytes(20_000_000))
        print(ray.get(slow.remote(1, big))[2], sum(n["Alive"] for n in ray.nodes()), flush=True)
    """)
    assert line(driver) == "ready"
    tell(driver)
    assert line(driver) == "going"
    net.cut(1, 3)
    assert line(driver) == "True {150000} {3000000}"
    assert line(driver) == "20000000 2"


@pytest.mark.slow
def test_cable_pulled_in_the_middle_of_an_object(net, homes):
    site = Site(net, homes)
    site.join(1, "--resources", '{"far": 1}', "--object-store-memory=600000000")
    driver = site.homes[0].driver("""
        import hashlib, os, sys, ray
        ray.init("auto", log_to_driver=False)
        @ray.remote(resources={"far": 0.01}, max_retries=0)
        def digest(value):
            return hashlib.sha256(value).hexdigest()
        value = os.urandom(1 << 20) * 120
        ref = ray.put(value)
        ray.get(digest.remote(b""))
        print("ready", flush=True)
        sys.stdin.readline()
        result = digest.remote(ref)
        print("going", flush=True)
        print(ray.get(result) == hashlib.sha256(value).hexdigest(), flush=True)
    """)
    assert line(driver) == "ready"
    # 120 MB at about 200 MB/s over TLS: the cable is pulled while they go over.
    puller = threading.Thread(target=net.cut, args=(1, 2))
    tell(driver)
    assert line(driver) == "going"
    puller.start()
    assert line(driver) == "True"
    puller.join()


@pytest.mark.slow
def test_order_of_an_actors_calls_over_a_cable_that_is_pulled(net, homes):
    """10,000 calls of each of two callers, with late arguments, over a link that is cut twice: in order, each once."""
    site = Site(net, homes)
    site.join(1, "--resources", '{"far": 1}', cpus=2)
    site.join(2, "--resources", '{"third": 1}', cpus=2)
    driver = site.homes[0].driver("""
        import sys, time, ray
        ray.init("auto", log_to_driver=False)
        @ray.remote(resources={"far": 0.1}, num_cpus=0)
        class Log:
            def __init__(self):
                self.seen = {}
            def add(self, who, k, late=None):
                self.seen.setdefault(who, []).append(k)
                return k, bytes(2000)
            def told(self):
                return {who: seen == list(range(10_000)) for who, seen in sorted(self.seen.items())}
        @ray.remote(num_cpus=0, max_retries=0)
        def value(k):
            time.sleep(0.02)
            return bytes(150_000 if k % 2 else 10)
        def calls(log, who):
            for k in range(0, 10_000, 500):
                refs = [log.add.remote(who, i, value.remote(i) if i % 50 == 0 else None) for i in range(k, k + 500)]
                assert [i for i, _ in ray.get(refs)] == list(range(k, k + 500))
                time.sleep(0.2)
        log = Log.remote()
        ray.get(log.told.remote())
        third = ray.remote(resources={"third": 0.1}, num_cpus=0, max_retries=0)(calls).remote(log, "third")
        print("ready", flush=True)
        calls(log, "near")
        ray.get(third)
        print(ray.get(log.told.remote()), flush=True)
    """)
    assert line(driver) == "ready"
    for _ in range(2):
        time.sleep(1)
        net.cut(1, 3)
    assert line(driver, 120) == "{'near': True, 'third': True}"
