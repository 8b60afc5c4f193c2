"""Runtime environments on one node: working_dir, py_modules, variables, the set-up hook, and what is refused."""

import os
import socket
import subprocess
import sys
import textwrap
import threading
import zipfile

import pytest

import ray
from ray.exceptions import RayTaskError, RuntimeEnvSetupError, WorkerCrashedError
from ray.job_config import JobConfig
from ray.runtime_env import RuntimeEnv, RuntimeEnvConfig, _ignore, _packages

LOCK = threading.Lock()
TEXT = "x" * 40_000


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def program(tmp_path):
    """A folder with a program of several files."""
    folder = write(
        tmp_path / "program",
        {
            "helper_of_program.py": "VALUE = 42",
            "data/table.txt": "rows",
            "noise.log": "x",
            ".gitignore": "*.log",
            ".git/config": "x",
            "__pycache__/x.pyc": "x",
            "run.sh": "echo hello",
        },
    )
    (folder / "run.sh").chmod(0o755)
    return folder


def seen():
    """What a task sees of its environment."""
    files = sorted(os.path.relpath(os.path.join(d, f), ".") for d, _, fs in os.walk(".") for f in fs)
    return os.getcwd(), files, os.getpid()


@ray.remote
def look():
    return seen()


@ray.remote
def load(name):
    import importlib

    return importlib.import_module(name).VALUE


@ray.remote
def environment(*names):
    return [os.environ.get(n) for n in names]


@ray.remote
def own():
    return ray.get_runtime_context().runtime_env, os.getpid()


# patterns


@pytest.mark.parametrize(
    ("lines", "out", "stays"),
    [
        (["*.log"], ["a.log", "x/y/a.log"], ["a.logs", "log"]),
        (["/a.txt"], ["a.txt"], ["x/a.txt"]),
        (["x/a.txt"], ["x/a.txt"], ["a.txt", "y/x/a.txt"]),
        (["build/"], ["build/", "x/build/"], ["build", "builds/"]),
        (["**/cache"], ["cache", "x/y/cache", "cache/"], ["mycache"]),
        (["a/**/b"], ["a/b", "a/x/y/b"], ["ab", "a/bb"]),
        (["a/**"], ["a/x", "a/x/y"], ["a", "b/a/x"]),
        (["*.txt", "!keep.txt"], ["a.txt", "x/b.txt"], ["keep.txt", "x/keep.txt"]),
        (["a?c", "[0-9].md", "[!x].rs"], ["abc", "1.md", "y.rs"], ["ac", "a/c", "10.md", "x.rs"]),
        (["# no", "", "  ", "\\#yes", "\\!bang", "end\\ "], ["#yes", "!bang", "end "], ["no", "# no"]),
        (["a*b"], ["ab", "axxb"], ["a/b"]),
        (["name."], ["name."], ["namex"]),
    ],
)
def test_patterns(lines, out, stays):
    patterns = _ignore.Patterns(lines)
    for name in out:
        assert patterns.exclude(name.rstrip("/"), name.endswith("/")), name
    for name in stays:
        assert not patterns.exclude(name.rstrip("/"), name.endswith("/")), name


def test_patterns_of_a_folder_below(tmp_path):
    write(tmp_path, {".gitignore": "/a", ".rayignore": "b"})
    git, rayignore = sorted(_ignore.of_folder(str(tmp_path), "sub"), key=lambda p: p.exclude("sub/x/b", False))
    assert git.exclude("sub/a", False) and not git.exclude("a", False) and not git.exclude("sub/x/a", False)
    assert rayignore.exclude("sub/x/b", False) and not rayignore.exclude("b", False)


# packages


def names(package):
    return [name for name, _, _ in package._files]


def test_a_package_is_named_by_its_content(tmp_path, program):
    first = _packages.of_folder(str(program), [])
    assert first.uri == f"gcs://{first.name}" and first.name.endswith(".zip")
    assert names(first) == [".gitignore", "data/", "data/table.txt", "helper_of_program.py", "run.sh"]
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(program), str(copy)], check=True)
    os.utime(copy / "run.sh", (1, 1))
    assert _packages.of_folder(str(copy), []).uri == first.uri
    (copy / "noise.log").write_text("what stays behind does not count")
    assert _packages.of_folder(str(copy), []).uri == first.uri
    uris = {first.uri, _packages.of_folder(str(copy), ["data"]).uri, _packages.of_folder(str(copy), [], "copy").uri}
    (copy / "run.sh").chmod(0o644)
    uris.add(_packages.of_folder(str(copy), []).uri)
    (copy / "run.sh").rename(copy / "walk.sh")
    uris.add(_packages.of_folder(str(copy), []).uri)
    (copy / "walk.sh").write_text("other")
    uris.add(_packages.of_folder(str(copy), []).uri)
    assert len(uris) == 6


def test_what_stays_behind(program, monkeypatch):
    assert "data/table.txt" not in names(_packages.of_folder(str(program), ["data/*.txt"]))
    monkeypatch.setenv("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", "data")
    all_but_data = names(_packages.of_folder(str(program), []))
    assert ".git/config" in all_but_data and "data/" not in all_but_data
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
    assert "noise.log" in names(_packages.of_folder(str(program), []))


def test_links(program):
    (program / "link.txt").symlink_to("data/table.txt")
    (program / "nowhere").symlink_to("missing")
    (program / "linked").symlink_to("data")
    assert {"link.txt", "linked/table.txt"} < set(names(_packages.of_folder(str(program), [])))
    (program / "data" / "up").symlink_to("..")
    with pytest.raises(ValueError, match="leads back to a folder above it"):
        _packages.of_folder(str(program), [])
    _packages.of_folder(str(program), ["up"])


def test_large_packages(program, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(_packages, "_LARGE_FILE", 1000)
    monkeypatch.setattr(_packages, "MAX_PACKAGE", 100_000)
    monkeypatch.setattr(_packages.logger, "propagate", True)
    (program / "weights").write_bytes(os.urandom(200_000))
    package = _packages.of_folder(str(program), [])
    assert "weights is very large (0.19MiB)" in caplog.text and "'excludes': ['/weights']" in caplog.text
    with pytest.raises(ValueError, match=r"exceeds the maximum size of 0.10MiB.*'excludes' option"):
        package.upload(lambda method, **_: {"has": False}, str(tmp_path))
    assert [p for p in os.listdir(tmp_path) if p.startswith("upload-")] == []
    asked = []
    _packages.of_folder(str(program), ["weights"]).upload(
        lambda method, **fields: asked.append((method, fields)) or {"has": True}, str(tmp_path)
    )
    assert [method for method, _ in asked] == ["package_has"]


# what is refused


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"working_dir": "/nonexist"}, ValueError, "/nonexist is not a valid path"),
        ({"working_dir": 5}, TypeError, "`working_dir` must be a string, got <class 'int'>"),
        ({"working_dir": "ftp://x.zip"}, ValueError, "ftp://x.zip is not a valid URI"),
        ({"working_dir": "https://a/b.txt"}, ValueError, "Only .zip, .tar.gz, .tgz, .tar.xz files are supported"),
        ({"py_modules": "x"}, TypeError, "`py_modules` must be a list of strings"),
        ({"py_modules": [5]}, TypeError, "`py_module` must be a string, got <class 'int'>"),
        ({"py_modules": ["/nonexist"]}, ValueError, "/nonexist is not a valid path"),
        ({"py_modules": ["s3://x.txt"]}, ValueError, "Only .zip, .whl, .tar.gz, .tgz, .tar.xz files are supported"),
        ({"excludes": "x"}, TypeError, r"runtime_env\['excludes'\] must be of type List\[str\]"),
        ({"env_vars": {"A=B": "a"}}, ValueError, "'A=B': 'a', which can't be an environment variable"),
        ({"env_vars": {"": "a"}}, ValueError, "'': 'a', which can't be an environment variable"),
        ({"env_vars": {"A": "a\0b"}}, ValueError, "which can't be an environment variable"),
        ({"env_vars": {1: "a"}}, TypeError, "but the key 1 is of type <class 'int'>"),
        ({"pip": ["x"], "uv": ["y"]}, ValueError, "cannot be specified at the same time"),
        ({"pip": "/nonexist.txt"}, ValueError, "/nonexist.txt is not a valid file"),
        ({"config": {"setup_timeout_seconds": 0}}, ValueError, "must be greater than zero or equals to -1, got: 0"),
        ({"config": {"log_files": "x"}}, TypeError, "log_files must be a list of strings or None"),
        ({"image_uri": "x", "pip": ["y"]}, ValueError, "cannot be used together with other fields"),
    ],
)
def test_bad_fields(fields, error, text):
    with pytest.raises(error, match=text):
        RuntimeEnv(**fields)


def test_fields():
    env = RuntimeEnv(working_dir="s3://b/c.zip", env_vars=[], py_modules=["gcs://x.zip"])
    assert env == {"working_dir": "s3://b/c.zip", "py_modules": ["gcs://x.zip"]}
    assert (
        env.has_working_dir() and env.working_dir_uri() == "s3://b/c.zip" and env.py_modules_uris() == ["gcs://x.zip"]
    )
    with pytest.raises(TypeError, match="but the value 1"):
        env["env_vars"] = {"a": 1}
    with pytest.raises(ValueError, match="Extension key must be one of"):
        env.get_extension("x")
    assert (env.pip_uri(), env.uv_uri(), env.conda_uri(), env.plugin_uris()) == (None, None, None, [])
    assert RuntimeEnv(pip=["x"]).pip_uri().startswith("pip://") and RuntimeEnv(conda="c").conda_uri() == "conda://c"
    assert RuntimeEnvConfig(setup_timeout_seconds=-1)["setup_timeout_seconds"] == -1


@pytest.mark.parametrize(
    ("env", "error", "text"),
    [
        ({"working_dir": "."}, ValueError, "only supported at the job level"),
        ({"py_modules": ["."]}, ValueError, "only supported at the job level"),
        ({"py_modules": [os]}, TypeError, "`py_module` must be a string"),
        ({"worker_process_setup_hook": lambda: 1}, TypeError, "not JSON serializable"),
        ({"pip": ["x"]}, NotImplementedError, "runtime environments with 'pip'"),
        ({"env_vars": {"A": "x" * 25_000}}, ValueError, "at most 24576 are possible"),
    ],
)
def test_bad_environments_of_tasks(env, error, text):
    with pytest.raises(error, match=text):
        look.options(runtime_env=env)


@pytest.mark.parametrize(
    ("env", "error", "text"),
    [
        ({"working_dir": "/nonexist"}, ValueError, "directory /nonexist must be an existing directory or a supported"),
        ({"py_modules": ["/nope"]}, ValueError, "py_modules entry must be a .py file, a directory, or a .whl file"),
        ({"py_modules": [5]}, TypeError, "must be a list of file paths, URIs, or imported modules, got <class 'int'>"),
        ({"py_modules": "x"}, TypeError, "py_modules must be a List of local paths"),
        ({"excludes": "x"}, TypeError, r"runtime_env\['excludes'\]"),
        ({"worker_process_setup_hook": 5}, TypeError, "must be a function, got <class 'int'>"),
        ({"worker_process_setup_hook": lambda text=TEXT: 1}, RuntimeEnvSetupError, "at most 32768 are"),
        ({"env_vars": {"A": "x" * 25_000}}, ValueError, "at most 24576 are possible"),
        (
            {"worker_process_setup_hook": lambda lock=LOCK: 1},
            RuntimeEnvSetupError,
            "Failed to export the setup",
        ),
    ],
)
def test_bad_environments_of_jobs(own_env, env, error, text):
    with pytest.raises(error, match=text):
        ray.init(num_cpus=1, runtime_env=env)
    assert not ray.is_initialized()


# working_dir


def test_working_dir(own_env, program):
    ray.init(num_cpus=2, runtime_env={"working_dir": str(program), "excludes": ["data/*.csv"], "env_vars": {"A": "1"}})
    folder, files, _ = ray.get(look.remote())
    assert files == [".gitignore", "data/table.txt", "helper_of_program.py", "run.sh"]
    assert folder.startswith(str(own_env)) and "runtime_resources" in folder
    assert ray.get(load.remote("helper_of_program")) == 42
    uri = ray.get_runtime_context().runtime_env["working_dir"]
    assert uri.startswith("gcs://_ray_pkg_")
    env = {"working_dir": uri, "env_vars": {"A": "1"}}
    assert ray.get_runtime_context().runtime_env == env and ray.get(own.remote())[0] == env

    @ray.remote
    def outer():
        import helper_of_program

        run = subprocess.run(
            [sys.executable, "-c", "import helper_of_program as h; print(h.VALUE)"], capture_output=True
        )
        script = subprocess.run(["./run.sh"], capture_output=True, shell=True)
        return helper_of_program.VALUE, run.stdout, script.stdout, ray.get(look.remote())[:2]

    assert ray.get(outer.remote()) == (42, b"42\n", b"hello\n", (folder, files))

    @ray.remote
    class Reader:
        def read(self):
            with open("data/table.txt") as f:
                return f.read(), os.environ["A"]

    assert ray.get(Reader.options(runtime_env={"env_vars": {"A": "actor"}}).remote().read.remote()) == ("rows", "actor")
    ray.shutdown()
    assert not os.path.exists(folder)  # the private cluster is gone, and its copy with it


def test_working_dir_of_a_job_config(own_env, program):
    ray.init(num_cpus=1, job_config=JobConfig(runtime_env={"working_dir": str(program)}))
    assert ray.get(load.remote("helper_of_program")) == 42


def test_archives(own_env, program, tmp_path):
    archive = tmp_path / "program.zip"
    with zipfile.ZipFile(archive, "w") as z:
        z.write(program / "helper_of_program.py", "top/helper_of_program.py")
    ray.init(num_cpus=1, runtime_env={"working_dir": str(archive)})
    assert ray.get(look.remote())[1] == ["top/helper_of_program.py"]
    stripped = look.options(runtime_env={"working_dir": f"file://{archive}"})
    assert ray.get(stripped.remote())[1] == ["helper_of_program.py"]


def test_py_modules(own_env, tmp_path):
    write(tmp_path, {"a/mod_a/__init__.py": "VALUE = 1", "b/mod_b.py": "VALUE = 2", "c/mod_c/__init__.py": "VALUE = 3"})
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as z:
        z.writestr("mod_d.py", "VALUE = 4")
    sys.path.append(str(tmp_path / "c"))
    try:
        import mod_c
    finally:
        sys.path.remove(str(tmp_path / "c"))
    modules = [str(tmp_path / "a" / "mod_a"), tmp_path / "b" / "mod_b.py", mod_c, str(tmp_path / "d.zip")]
    ray.init(num_cpus=1, runtime_env={"py_modules": modules})
    assert ray.get([load.remote(f"mod_{x}") for x in "abcd"]) == [1, 2, 3, 4]
    assert ray.get(look.remote())[0] == os.getcwd()
    none = ray.get_runtime_context().runtime_env["py_modules"][:1]
    with pytest.raises(ModuleNotFoundError):  # a task's list takes the place of its job's
        ray.get(load.options(runtime_env={"py_modules": none}).remote("mod_b"))


def test_a_module_that_is_not_there(own_env, program, monkeypatch):
    monkeypatch.chdir(own_env)
    ray.init(num_cpus=1)
    with pytest.raises(ModuleNotFoundError) as told:
        ray.get(load.remote("helper_of_program"))
    text = str(told.value)
    assert "'helper_of_program' is not installed on node 127.0.0.1" in text
    assert (
        f"ray.init(runtime_env={{'working_dir': {os.path.dirname(__file__)!r}}})" in text or "{'working_dir': '" in text
    )
    ray.shutdown()
    ray.init(num_cpus=1, runtime_env={"working_dir": str(program)})
    with pytest.raises(ModuleNotFoundError, match="working_dir of the runtime environment does not hold it either"):
        ray.get(load.remote("no_such_module"))
    # A function that is known by its module's name.
    monkeypatch.syspath_prepend(str(write(own_env / "late", {"late_module.py": "def f(): return 1"})))
    import late_module

    with pytest.raises(RayTaskError, match="'late_module' is not installed on node"):
        ray.get(ray.remote(late_module.f).remote())


# processes


def test_workers_of_environments_do_not_mix(ray_2):
    a, b = {"env_vars": {"V": "a"}}, {"env_vars": {"V": "b"}}
    pids = {}
    for _ in range(3):
        for value, env in (("a", a), ("b", b), (None, None)):
            f = environment.options(runtime_env=env) if env else environment
            g = own.options(runtime_env=env) if env else own
            assert ray.get(f.remote("V")) == [value]
            pids.setdefault(value, set()).add(ray.get(g.remote())[1])
    assert not pids["a"] & pids["b"] and not pids["a"] & pids[None] and not pids["b"] & pids[None]
    assert all(len(p) <= 2 for p in pids.values())


def test_variables_that_act_on_a_new_program_only(own_env):
    ray.init(num_cpus=1)
    seeded = ray.remote(runtime_env={"env_vars": {"PYTHONHASHSEED": "7"}})(lambda: hash("x"))
    told = subprocess.run(
        [sys.executable, "-c", "print(hash('x'))"], env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True
    )
    assert ray.get(seeded.remote()) == int(told.stdout)


def test_pythonpath(own_env, tmp_path):
    write(tmp_path, {"lib/mod_of_path.py": "VALUE = 5"})
    ray.init(num_cpus=1)
    env = {"env_vars": {"PYTHONPATH": f"{tmp_path}/lib:${{PYTHONPATH}}"}}
    assert ray.get(load.options(runtime_env=env).remote("mod_of_path")) == 5


def test_large_environments(own_env):
    """As large as they may be, all that a worker is told still fits."""

    def hook(text="x" * 30_000):
        os.environ["HOOKED"] = text

    ray.init(num_cpus=1, runtime_env={"env_vars": {"A": "a" * 24_000}, "worker_process_setup_hook": hook})
    large = environment.options(runtime_env={"env_vars": {"B": "b" * 24_000}})
    assert [len(v) for v in ray.get(large.remote("A", "B", "HOOKED"))] == [24_000, 24_000, 30_000]


# the set-up hook


def test_hook(own_env, monkeypatch):
    def hook():
        os.environ["HOOKED"] = str(os.getpid())

    monkeypatch.syspath_prepend(
        str(write(own_env / "m", {"hook_module.py": "import os\ndef f(): os.environ['HOOKED'] = 'm'"}))
    )
    ray.init(num_cpus=1, runtime_env={"worker_process_setup_hook": hook})
    env, pid = ray.get(own.remote())
    assert env == {"worker_process_setup_hook": "hook"} and ray.get(environment.remote("HOOKED")) == [str(pid)]

    @ray.remote
    class A:
        def f(self):
            return os.environ["HOOKED"] == str(os.getpid())

    assert ray.get(A.remote().f.remote())
    named = environment.options(runtime_env={"worker_process_setup_hook": "hook_module.f"})
    assert ray.get(named.remote("HOOKED")) == ["m"]


def test_hook_that_fails(own_env):
    def hook():
        raise ValueError("hook is bad")

    ray.init(num_cpus=1, runtime_env={"worker_process_setup_hook": hook})
    with pytest.raises(WorkerCrashedError) as told:
        ray.get(own.options(max_retries=1).remote())
    assert "Failed to execute the setup hook method, hook:" in str(told.value)
    assert "ValueError: hook is bad" in str(told.value) and "attempt 1" in str(told.value)

    @ray.remote
    class A:
        def f(self):
            pass

    with pytest.raises(ray.exceptions.ActorDiedError, match="hook is bad"):
        ray.get(A.remote().f.remote())


# failures


def ends_the_process():
    print("the hook is over", file=sys.stderr, flush=True)
    os._exit(7)


@pytest.mark.parametrize(
    ("job", "variables", "words"),
    [
        (ends_the_process, {}, ["3 in a row", "exit code 7", "the hook is over"]),
        (None, {"PYTHONHOME": "/nonexistent"}, ["PYTHONHOME=/nonexistent", "encodings", "exit status 1"]),
    ],
)
def test_an_environment_that_no_worker_survives(own_env, job, variables, words):
    """It is not tried for ever, however often a task may be retried; what the processes said is told."""
    ray.init(num_cpus=1, runtime_env={"worker_process_setup_hook": job} if job else None)
    env = {"runtime_env": {"env_vars": variables}} if variables else {}
    with pytest.raises(RuntimeEnvSetupError) as told:
        ray.get(own.options(max_retries=-1, **env).remote(), timeout=60)
    assert all(w in str(told.value) for w in words), str(told.value)

    @ray.remote(max_restarts=-1, **env)
    class A:
        def f(self):
            pass

    with pytest.raises(RuntimeEnvSetupError) as told:
        ray.get(A.remote().f.remote(), timeout=60)
    assert all(w in str(told.value) for w in words[1:]), str(told.value)


def test_setup_that_fails(ray_2, tmp_path):
    env = {"working_dir": f"file://{tmp_path}/nothing.zip"}
    with pytest.raises(RuntimeEnvSetupError, match="Failed to set up runtime environment") as told:
        ray.get(look.options(runtime_env=env, max_retries=-1).remote())
    assert (
        "nothing.zip" in str(told.value) and "no such file" in str(told.value) and "[Node 127.0.0.1]" in str(told.value)
    )

    @ray.remote(max_restarts=-1, max_task_retries=-1)
    class A:
        def f(self):
            return os.getcwd()

    with pytest.raises(RuntimeEnvSetupError, match="nothing.zip"):
        ray.get(A.options(runtime_env=env).remote().f.remote())
    for uri, text in {
        "gcs://_ray_pkg_0123456789abcdef.zip": "never uploaded",
        "s3://bucket/x.zip": "Gray does not read s3:// yet",
        f"file://{tmp_path}/x.tar.xz": "does not unpack others yet",
    }.items():
        with pytest.raises(RuntimeEnvSetupError, match=text):
            ray.get(look.options(runtime_env={"working_dir": uri}).remote())
    with zipfile.ZipFile(tmp_path / "nothing.zip", "w") as z:  # it is tried again
        z.writestr("a.txt", "")
    assert ray.get(look.options(runtime_env=env).remote())[1] == ["a.txt"]
    assert ray.get(look.remote())[0] == os.getcwd()


def test_setup_timeout(ray_2):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        env = {
            "working_dir": f"https://127.0.0.1:{silent.getsockname()[1]}/x.zip",
            "config": {"setup_timeout_seconds": 1},
        }
        with pytest.raises(RuntimeEnvSetupError, match="longer than setup_timeout_seconds=1"):
            ray.get(look.options(runtime_env=env).remote())
    assert ray.get(look.remote())[0] == os.getcwd()


def test_an_upload_that_fails(own_env, program, monkeypatch):
    monkeypatch.setattr(_packages, "MAX_PACKAGE", 10)
    with pytest.raises(ValueError, match="exceeds the maximum size"):
        ray.init(num_cpus=1, runtime_env={"working_dir": str(program)})
    assert not ray.is_initialized()
    monkeypatch.undo()


def test_script_beside_its_modules(own_env, program):
    """The usual program: a script that imports what lies beside it, started from elsewhere."""
    (program / "main.py").write_text(
        textwrap.dedent("""
            import sys
            sys.path.insert(0, "/somewhere")
            import ray, helper_of_program
            ray.init(num_cpus=1)
            f = ray.remote(lambda: __import__("helper_of_program").VALUE)
            print(ray.get(f.remote()))
        """)
    )
    run = subprocess.run(
        [sys.executable, str(program / "main.py")], cwd=own_env, capture_output=True, text=True, timeout=60
    )
    assert run.stdout == "42\n", run.stderr


# Asks a worker for a module that it does not find.
MISSING = """
import ray
ray.init(num_cpus=1, runtime_env={env})
try:
    ray.get(ray.remote(lambda: __import__("no_such_module")).remote())
except ModuleNotFoundError as e:
    print(str(e).splitlines()[-1])
"""
ADVICE = "If it is a package, install it on every node, or take an image that has it."


def test_where_a_module_may_lie(own_env, program):
    """A script that names "." as its working_dir, but is started from elsewhere, is told where it lies."""
    script = write(program, {"main.py": MISSING.format(env={"working_dir": "."})}) / "main.py"
    told = subprocess.run([sys.executable, str(script)], cwd=own_env, capture_output=True, text=True, timeout=60)
    assert told.stdout.endswith(
        " does not hold it either. If it lies beside the driver's script, that folder is %r. %s\n"
        % (str(program), ADVICE)
    ), told
    told = subprocess.run([sys.executable, str(script)], cwd=program, capture_output=True, text=True, timeout=60)
    assert told.stdout.endswith(" does not hold it either. %s\n" % ADVICE), told


def test_a_notebook_has_no_script(own_env, program):
    """A kernel is started by a module that lies among the installed ones, which is not where the notebook is."""
    write(program, {"work/note": ""})
    kernel = write(program, {"kernel.py": "import sys, types\nmain = sys.modules['__main__'] = types.ModuleType('__main__')\n"
                             "exec(%r, main.__dict__)" % MISSING.format(env=None)}) / "kernel.py"  # fmt: skip
    work = program / "work"
    told = subprocess.run([sys.executable, str(kernel)], cwd=work, capture_output=True, text=True, timeout=60)
    assert told.stdout.endswith("ray.init(runtime_env={'working_dir': '.'}). %s\n" % ADVICE), told
