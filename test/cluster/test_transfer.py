"""Objects that go from node to node."""

import os
import re
import signal

import pytest
from machines import alive, line, tell, until

BROADCAST = """
    import hashlib, os, sys, ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Affinity
    ray.init("auto", log_to_driver=False)
    size = int(sys.argv[1])
    chunk = os.urandom(1 << 20)
    value = chunk * (size >> 20)
    ref = ray.put(value)
    want = hashlib.sha256(value).hexdigest()
    @ray.remote(max_retries=0)
    def digest(value):
        return hashlib.sha256(value).hexdigest()
    me = ray.get_runtime_context().get_node_id()
    others = [n["NodeID"] for n in ray.nodes() if n["NodeID"] != me]
    got = ray.get([digest.options(scheduling_strategy=Affinity(n, soft=False)).remote(ref) for n in others])
    print(len(got), set(got) == {want}, flush=True)
"""


@pytest.mark.slow
def test_broadcast(home):
    """The owner's bytes leave it at most twice, whoever wants them; the others pass them on."""
    size = 300 << 20
    store = f"--object-store-memory={size * 2}"
    head = home.head(store)
    for k in (2, 3, 4):
        home.node(head["gcs_address"], store, ip=f"127.0.0.{k}")
    assert home.python(BROADCAST, size, timeout=110) == "3 True\n"
    home.ray("stop")
    logs = {p.name: p.read_text() for p in home.root.glob("session_2*/logs/raylet*.err")}
    sent = {
        name: int(m[1])
        for name, text in logs.items()
        for m in [re.search(r"objects were sent.* bytes=(\d+)", text)]
        if m
    }
    assert size <= sent["raylet.err"] <= 2.1 * size, sent
    assert sum(sent.values()) >= 3 * size, sent


@pytest.mark.needs_root
def test_a_small_shared_memory(home, tmp_path):
    """Where /dev/shm is small, objects lie in a file of the session, with a warning."""
    if os.getuid() != 0:
        pytest.skip("mounting needs root")
    code = """
        import ray
        ray.init("auto", log_to_driver=False)
        value = bytes(50_000_000)
        print(len(ray.get(ray.put(value))), ray.get(ray.remote(lambda x: len(x)).remote(value)))
    """
    small = tmp_path / "shm"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=4m tmpfs {small}") != 0:
        pytest.skip("this machine does not mount a tmpfs")
    try:
        out = home.ray("start", "--head", "--port=0", "--num-cpus=1", "--dashboard-agent-listen-port=0", "--node-ip-address=127.0.0.1",
                       "--include-dashboard=false", f"--plasma-directory={small}", "--object-store-memory=200000000").stdout  # fmt: skip
        log = "".join(p.read_text() for p in home.root.glob("session_2*/logs/raylet*.err"))
        assert "slower" in out + log and str(small) in out + log, (out, log)
        assert home.python(code) == "50000000 50000000\n"
        home.ray("stop")
        assert not [p for p in home.root.rglob("*") if p.is_file() and p.stat().st_size > 1 << 20]
    finally:
        os.system(f"umount {small}")


@pytest.mark.slow
def test_a_copy_whose_source_dies(home):
    """Another copy takes over; the task gets the bytes whole."""
    head = home.head("--object-store-memory=900000000")
    store = "--object-store-memory=600000000"
    source = home.node(head["gcs_address"], store, "--resources", '{"source": 1}', ip="127.0.0.2")
    home.node(head["gcs_address"], store, "--resources", '{"sink": 1}', ip="127.0.0.3")
    driver = home.driver("""
        import hashlib, os, sys, ray
        ray.init("auto", log_to_driver=False)
        @ray.remote(resources={"source": 0.1}, num_cpus=0)
        def size(value):
            return len(value)
        @ray.remote(resources={"sink": 0.1}, num_cpus=0)
        def digest(value):
            return hashlib.sha256(value).hexdigest()
        value = os.urandom(1 << 20) * 300
        ref = ray.put(value)
        print(ray.get(size.remote(ref)), flush=True)
        sys.stdin.readline()
        result = digest.remote(ref)
        print("going", flush=True)
        print(ray.get(result) == hashlib.sha256(value).hexdigest(), flush=True)
    """)
    assert line(driver) == str(300 << 20)
    tell(driver)
    assert line(driver) == "going"
    os.kill(source["pid"], signal.SIGKILL)
    until(lambda: not alive((source["pid"], source["start_time"])), "the end of the node")
    assert line(driver) == "True"
