"""Options of actor classes and methods. Nothing runs: most of it needs no cluster."""

import pytest

import ray
from ray import _options


class Plain:
    def method(self):
        pass


class Async:
    async def method(self):
        pass


A = ray.remote(Plain)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"foo": 1}, ValueError, "Invalid option keyword foo for actors. Valid ones are"),
        ({"num_returns": 2}, ValueError, "Invalid option keyword num_returns for actors"),
        ({"max_retries": 2}, ValueError, "Invalid option keyword max_retries for actors"),
        ({"concurrency_groups": {"io": 1}}, ValueError, "Setting 'concurrency_groups' is not supported in '.options"),
        (
            {"lifetime": "x"},
            ValueError,
            "actor `lifetime` argument must be one of 'detached', 'non_detached' and 'None'",
        ),
        ({"get_if_exists": True}, ValueError, "The actor name must be specified to use `get_if_exists`."),
        ({"name": 3}, TypeError, "The type of keyword 'name' must be"),
        ({"namespace": 3}, TypeError, "The type of keyword 'namespace' must be"),
        ({"max_concurrency": 1.5}, TypeError, "The type of keyword 'max_concurrency' must be"),
        (
            {"max_concurrency": -1},
            ValueError,
            "The keyword 'max_concurrency' only accepts None, 0 or a positive integer",
        ),
        (
            {"max_pending_calls": -2},
            ValueError,
            "The keyword 'max_pending_calls' only accepts None, 0, -1 or a positive",
        ),
        ({"max_restarts": -2}, ValueError, "The keyword 'max_restarts' only accepts None, 0, -1 or a positive integer"),
        ({"max_task_retries": -2}, ValueError, "The keyword 'max_task_retries' only accepts None, 0, -1 or a positive"),
        ({"num_cpus": -1}, ValueError, "The quantity of resource num_cpus cannot be negative"),
        ({"resources": {"CPU": 1}}, ValueError, "Use the 'num_cpus' and 'num_gpus' keyword"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        A.options(**options)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (
            Plain,
            {"allow_out_of_order_execution": False, "max_concurrency": 2},
            "using multi-threaded actors, Ray can't",
        ),
        (Async, {"allow_out_of_order_execution": False}, "using async actors, Ray can't execute actor tasks in order"),
        (Plain, {"name": ""}, "Actor name cannot be an empty string"),
        (Plain, {"namespace": ""}, '"" is not a valid namespace'),
        (Plain, {"scheduling_strategy": "foo"}, "Invalid scheduling_strategy value foo"),
        (Plain, {"num_gpus": 1.5}, "must be whole numbers"),
    ],
)
def test_options_that_are_wrong_at_the_call(shared_ray, cls, options, message):
    with pytest.raises(ValueError, match=message):
        ray.remote(cls).options(**options).remote()


@pytest.mark.parametrize(
    ("options", "needed", "held"),
    [
        ({}, {"CPU": 10000}, {}),
        ({"memory": 5}, {"CPU": 10000, "memory": 50000}, {"memory": 50000}),
        ({"num_cpus": 2}, {"CPU": 20000}, {"CPU": 20000}),
        ({"num_cpus": 0}, {}, {}),
        ({"num_gpus": 1}, {"CPU": 10000, "GPU": 10000}, {"CPU": 10000, "GPU": 10000}),
        ({"num_gpus": 0}, {"CPU": 10000}, {"CPU": 10000}),
        ({"resources": {"x": 1}}, {"CPU": 10000, "x": 10000}, {"CPU": 10000, "x": 10000}),
        ({"resources": {}}, {"CPU": 10000}, {}),
        ({"resources": {"x": 1}, "num_cpus": 0}, {"x": 10000}, {"x": 10000}),
        (
            {"accelerator_type": "A"},
            {"CPU": 10000, "accelerator_type:A": 10},
            {"CPU": 10000, "accelerator_type:A": 10},
        ),
    ],
)
def test_what_an_actor_needs_and_holds(options, needed, held):
    assert _options.actor_resources(options) == (needed, held)


def test_method_decorator():
    @ray.method(num_returns=2, concurrency_group="io", max_task_retries=1, retry_exceptions=True)
    def f(self):
        pass

    assert (f.__ray_num_returns__, f.__ray_concurrency_group__) == (2, "io")
    assert (f.__ray_max_task_retries__, f.__ray_retry_exceptions__) == (1, True)
    with pytest.raises(AssertionError, match="Unexpected keyword argument to @ray.method: 'foo'"):
        ray.method(foo=1)


@pytest.mark.parametrize("groups", [{"io": "1"}, {"io": 1.5}, [{"name": "io"}], {1: 1}])
def test_wrong_concurrency_groups(shared_ray, groups):
    with pytest.raises(TypeError):
        ray.remote(concurrency_groups=groups)(Plain).remote()


def test_default_lifetime():
    config = ray.job_config.JobConfig(default_actor_lifetime="detached")
    job = {"default_actor_lifetime": config._default_actor_lifetime}
    assert _options.is_detached({}, job) and not _options.is_detached({"lifetime": "non_detached"}, job)
    assert not _options.is_detached({}, {}) and _options.is_detached({"lifetime": "detached"}, {})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_task_retries": -5}, ValueError),
        ({"max_task_retries": 1.5}, TypeError),
        ({"retry_exceptions": "x"}, TypeError),
        ({"retry_exceptions": [1]}, ValueError),
        ({"name": 5}, TypeError),
        ({"concurrency_group": 5}, TypeError),
        ({"concurrency_group": "nobody"}, ValueError),
        ({"num_cpus": 1}, TypeError),
        ({"runtime_env": {}}, TypeError),
        ({"nothing": 1}, TypeError),
        ({"num_returns": 1.5}, TypeError),
        ({"num_returns": "many"}, TypeError),
        ({"num_returns": -1}, ValueError),
    ],
)
def test_wrong_options_of_methods(shared_ray, options, error):
    a = A.remote()
    with pytest.raises(error):
        a.method.options(**options).remote()
    ray.get(a.method.remote())
