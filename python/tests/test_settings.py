"""Runtime environments, job settings, logging and small helpers."""

import io
import json
import logging
import threading

import pytest

import ray
from ray import _init, _logging
from ray.job_config import JobConfig
from ray.runtime_env import RuntimeEnv, RuntimeEnvConfig, merge
from ray.util import annotations, inspect_serializability, log_once


@pytest.mark.parametrize(
    "fields,error,text",
    [
        ({"pip": ["a"], "conda": "b"}, ValueError, "cannot be specified at the same time"),
        ({"pip": ["a"], "uv": ["b"]}, ValueError, "specified uv field"),
        ({"working_dir": 5}, TypeError, "`working_dir` must be a string, got <class 'int'>."),
        ({"working_dir": "/nonexistent"}, ValueError, "/nonexistent is not a valid path."),
        ({"env_vars": 5}, TypeError, "runtime_env\\['env_vars'\\] must be of type Dict"),
        ({"env_vars": {1: "a"}}, TypeError, "but the key 1 is of type <class 'int'>"),
        ({"env_vars": {"a": 1}}, TypeError, "but the value 1 is of type <class 'int'>"),
        ({"config": {"setup_timeout_seconds": 0}}, ValueError, "must be greater than zero or equals to -1, got: 0"),
        ({"excludes": 5}, TypeError, "must be of type List\\[str\\], got <class 'int'>"),
        ({"pip": 5}, TypeError, "runtime_env\\['pip'\\] must be of type str or List\\[str\\], got <class 'int'>"),
        ({"py_modules": 5}, TypeError, "`py_modules` must be a list of strings, got <class 'int'>."),
        ({"image_uri": "a", "pip": ["b"]}, ValueError, "cannot be used together with other fields"),
    ],
)
def test_bad_runtime_env(fields, error, text):
    with pytest.raises(error, match=text):
        RuntimeEnv(**fields)


def test_runtime_env():
    env = RuntimeEnv(env_vars={"a": "b"}, pip=["x"], config={"setup_timeout_seconds": 5})
    assert isinstance(env, dict) and env["env_vars"] == {"a": "b"}
    assert env.env_vars() == {"a": "b"} and env.has_pip() and env.pip_config() == {"packages": ["x"]}
    assert env.working_dir() == "" and not env.has_working_dir() and env.py_modules() == []
    assert RuntimeEnv.deserialize(env.serialize()) == env
    assert json.loads(RuntimeEnv(env_vars={"a": "b"}).serialize()) == {"env_vars": {"a": "b"}}
    assert dict(env["config"]) == {"setup_timeout_seconds": 5, "eager_install": True, "log_files": []}
    assert RuntimeEnv(foo=1) == {"foo": 1}
    with pytest.raises(NotImplementedError, match="'pip'"):
        env.check_there()
    RuntimeEnv(env_vars={"a": "b"}).check_there()
    assert RuntimeEnvConfig.default_config()["setup_timeout_seconds"] == 600


def test_merge():
    parent, child = {"env_vars": {"A": "1", "B": "1"}, "x": 1}, {"env_vars": {"B": "2"}, "y": 2}
    assert merge(parent, child) == {"env_vars": {"A": "1", "B": "2"}, "x": 1, "y": 2}
    with pytest.raises(ValueError, match=r"conflict in env_vars\['B'\]"):
        merge(parent, child, strict=True)
    with pytest.raises(ValueError, match="conflict in x"):
        merge(parent, {"x": 2}, strict=True)
    assert merge(parent, {"x": 1, "env_vars": {"B": "1"}}, strict=True) == parent


def job(monkeypatch, **given):
    base = dict.fromkeys("job_config runtime_env namespace logging_config log_to_driver".split())
    return _init._job({**base, "configure_logging": True, **given})[0]


def test_job(monkeypatch):
    monkeypatch.setenv("RAY_LOG_TO_DRIVER", "1")
    made = job(monkeypatch, runtime_env={"env_vars": {"a": "b"}}, namespace="n")
    assert made["namespace"] == "n" and made["logging"]["to_driver"] is True
    assert made["runtime_env"] == {"env_vars": {"a": "b"}}
    assert len(job(monkeypatch)["namespace"]) == 36 and job(monkeypatch)["namespace"] != job(monkeypatch)["namespace"]
    import uuid

    assert uuid.UUID(job(monkeypatch)["namespace"]).version == 4
    monkeypatch.setenv("RAY_LOG_TO_DRIVER", "0")
    assert job(monkeypatch)["logging"]["to_driver"] is False
    assert job(monkeypatch, log_to_driver=True)["logging"]["to_driver"] is True


def test_job_of_a_submission(monkeypatch):
    submitted = {"runtime_env": {"env_vars": {"A": "1"}}, "metadata": {"k": "v"}, "ray_namespace": "s"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(submitted))
    made = job(monkeypatch, runtime_env={"env_vars": {"B": "2"}})
    assert (
        made["runtime_env"] == {"env_vars": {"A": "1", "B": "2"}}
        and made["metadata"] == {"k": "v"}
        and made["namespace"] == "s"
    )
    with pytest.raises(ValueError, match="conflict"):
        job(monkeypatch, runtime_env={"env_vars": {"A": "2"}})
    monkeypatch.setenv("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    assert job(monkeypatch, runtime_env={"env_vars": {"A": "2"}})["runtime_env"] == {"env_vars": {"A": "2"}}


def test_runtime_env_hook(monkeypatch):
    import sys
    import types

    module = types.ModuleType("env_hook_of_a_test")
    module.hook = lambda env: {**env, "env_vars": {"H": "1"}}
    monkeypatch.setitem(sys.modules, "env_hook_of_a_test", module)
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "env_hook_of_a_test.hook")
    assert job(monkeypatch)["runtime_env"] == {"env_vars": {"H": "1"}}
    assert job(monkeypatch, _skip_env_hook=True)["runtime_env"] == {}


def test_job_config():
    config = JobConfig(metadata={"a": "b"}, ray_namespace="n", runtime_env={"env_vars": {"a": "b"}})
    config.set_metadata("c", "d")
    assert config.metadata == {"a": "b", "c": "d"} and config.ray_namespace == "n"
    with pytest.raises(ValueError, match="Default actor lifetime must be one of `detached`, `non_detached`"):
        JobConfig(default_actor_lifetime="x")
    with pytest.raises(TypeError):
        config.set_runtime_env({"env_vars": {"a": 1}}, validate=True)
    assert JobConfig.from_json({"metadata": {"x": "y"}}).metadata == {"x": "y"}


def test_logging_config():
    config = ray.LoggingConfig(encoding="JSON", log_level="DEBUG", additional_log_standard_attrs=["process"])
    assert ray.LoggingConfig.from_dict(config.to_dict()) == config
    assert (
        repr(ray.LoggingConfig())
        == "LoggingConfig(encoding='TEXT', log_level='INFO', additional_log_standard_attrs=[])"
    )
    with pytest.raises(ValueError, match=r"Invalid encoding type: x. Valid encoding types are: \['TEXT', 'JSON'\]"):
        ray.LoggingConfig(encoding="x")
    with pytest.raises(ValueError, match="Unknown python logging standard attribute: x"):
        ray.LoggingConfig(additional_log_standard_attrs=["x"])


def record(**fields):
    made = logging.LogRecord("n", logging.INFO, "/a/b.py", 7, "hello %s", ("you",), None)
    made.__dict__.update(fields)
    return made


def test_log_lines():
    line = json.loads(
        _logging._JsonFormatter(ray.LoggingConfig(additional_log_standard_attrs=["name"])).format(record(mine=5))
    )
    assert (
        line["message"] == "hello you"
        and line["levelname"] == "INFO"
        and line["lineno"] == 7
        and line["filename"] == "b.py"
    )
    assert (
        line["mine"] == 5 and line["process"] and line["name"] == "n" and line["timestamp_ns"] > 0 and "asctime" in line
    )
    text = _logging._TextFormatter(ray.LoggingConfig()).format(record(mine=5))
    assert "\tINFO b.py:7 -- hello you mine=5 timestamp_ns=" in text


def test_the_logger(capsys):
    logger = logging.getLogger("ray")
    _logging.setup_logger("info")
    _logging.setup_logger("info")
    logger.info("once")
    logger.debug("never")
    err = capsys.readouterr().err
    assert err.count("once") == 1 and "never" not in err
    assert "\tINFO test_settings.py:" in err and err.rstrip().endswith("-- once")


def test_log_once():
    assert log_once("a key of this test") and not log_once("a key of this test")


def test_annotations():
    @annotations.PublicAPI
    def a():
        return 1

    @annotations.PublicAPI(stability="beta")
    class B:
        pass

    @annotations.Deprecated(message="Use b.", warning=True)
    def c():
        return 3

    @annotations.DeveloperAPI
    def d():
        return 4

    assert a() == 1 and B() and d() == 4
    with pytest.warns(DeprecationWarning, match="Use b."):
        assert c() == 3
    with pytest.raises(ValueError):
        annotations.PublicAPI(stability="solid")


def test_inspect_serializability():
    lock = threading.Lock()

    def uses_lock():
        return lock

    out = io.StringIO()
    fine, failures = inspect_serializability(uses_lock, name="u", print_file=out)
    assert not fine and [f.name for f in failures] == ["lock"] and next(iter(failures)).parent is uses_lock
    assert "Checking Serializability of" in out.getvalue() and "was found to be non-serializable" in out.getvalue()
    out = io.StringIO()
    assert inspect_serializability([1], print_file=out) == (True, set())

    class Holder:
        def __init__(self):
            self.inner = {"deep": lock}

    fine, failures = inspect_serializability(Holder(), print_file=io.StringIO())
    assert not fine and {f.name for f in failures} == {"deep"}


def test_get_node_ip_address_without_a_connection(monkeypatch):
    assert ray.util.get_node_ip_address().count(".") == 3
    monkeypatch.setenv("RAY_CLOUD_INSTANCE_ID", "i-5")
    assert ray.util.get_node_instance_id() == "i-5"


def test_runtime_context_without_a_connection(monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "0")
    with pytest.raises(RuntimeError, match="Job ID is not available because Ray has not been initialized"):
        ray.get_runtime_context().get_job_id()
    with pytest.raises(RuntimeError, match="only available in an actor"):
        ray.get_runtime_context().current_actor  # noqa: B018


def test_cloudpickle():
    assert ray.cloudpickle.loads(ray.cloudpickle.dumps(lambda x: x + 1))(1) == 2
    with pytest.raises(TypeError, match="Could not serialize"):
        ray.cloudpickle.dumps_debug(threading.Lock())


@pytest.mark.parametrize(
    "args,text",
    [
        (
            {"dashboard_port": 30000, "metrics_export_port": 30000},
            "port number 30000 that is used by dashboard_port|metrics",
        ),
        ({"redis_port": 30000, "worker_port_list": "30000,30001"}, r"\[30000, 30001\]"),
        ({"redis_port": 30000, "min_worker_port": 25000, "max_worker_port": 35000}, "from 25000 to 35000"),
        ({"num_cpus": -1}, "nonnegative"),
    ],
)
def test_bad_nodes_of_a_cluster(args, text):
    with pytest.raises(ValueError, match=text):
        ray.cluster_utils.Cluster(shutdown_at_exit=False).add_node(**args)
