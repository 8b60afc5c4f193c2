"""Remote functions as objects: decorator forms, calls and options. What reaches the engine is looked at; nothing runs."""

import pytest

import ray
from ray import _core, remote_function


class FakeClient:
    pass


@pytest.fixture
def calls(monkeypatch):
    """What was submitted, as tuples of template fields, args, kwargs, num_returns and overrides."""
    seen, templates = [], []

    class Template:
        def __init__(self, function, **fields):
            self.fields = fields
            templates.append(self)

    def submit(template, args, kwargs=None, num_returns=1, overrides=None):
        seen.append((template.fields, args, kwargs, num_returns, overrides))
        return "ref"

    client = FakeClient()
    monkeypatch.setattr(_core, "Template", Template)
    monkeypatch.setattr(remote_function, "_submit", submit)
    monkeypatch.setattr(_core.state, "client", client)
    monkeypatch.setattr(_core.state, "job", {})
    monkeypatch.setattr(_core.state, "runtime_env", {})
    seen_templates = templates
    seen.append(seen_templates)
    yield seen


def f(a, b=2):
    """Add."""
    return a + b


@pytest.mark.parametrize(
    "use", [lambda: ray.remote(1), lambda: ray.remote(), lambda: ray.remote(f, num_cpus=1), lambda: ray.remote("a")]
)
def test_wrong_use_of_the_decorator(use):
    with pytest.raises(
        AssertionError, match="The @ray.remote decorator must be applied either with no arguments and no parentheses"
    ):
        use()


class Callable:
    def __call__(self):
        pass

    def method(self):
        pass


@pytest.mark.parametrize("what", [len, Callable(), Callable().method])
def test_what_is_no_function(what):
    with pytest.raises(TypeError, match="The @ray.remote decorator must be applied to either a function or a class."):
        ray.remote(what)
    with pytest.raises(TypeError, match="must be applied to either a function or a class"):
        ray.remote(num_cpus=1)(3)


def test_coroutines_are_refused():
    async def co():
        pass

    with pytest.raises(
        ValueError, match="'async def' should not be used for remote tasks. You can wrap the async function with"
    ):
        ray.remote(co)


def test_direct_call():
    with pytest.raises(TypeError) as e:
        ray.remote(f)(1)
    name = f"{__name__}.f"
    assert (
        str(e.value)
        == f"Remote functions cannot be called directly. Instead of running '{name}()', try '{name}.remote()'."
    )


def test_looks_like_the_function():
    g = ray.remote(num_cpus=2)(f)
    assert (g.__name__, g.__qualname__, g.__doc__, g.__module__) == ("f", "f", "Add.", __name__)
    assert g._function is f and g._function_name == f"{__name__}.f"
    assert g._default_options == {"num_cpus": 2}
    import inspect

    assert list(inspect.signature(g).parameters) == ["a", "b"]


def test_call(calls):
    g = ray.remote(f)
    assert g.remote(1) == "ref"
    assert g.remote(1, b=3) == "ref"
    templates, (fields, args, kwargs, n, overrides), second = calls
    assert (args, kwargs, n, overrides) == ((1,), None, 1, None)
    assert second[1:3] == ((1,), {"b": 3})
    assert fields["name"] == "f" and fields["qualname"].endswith("test_remote_function.f")
    assert fields["resources"] == {"CPU": 10000} and fields["max_retries"] == 3 and fields["retry_exceptions"] is False
    assert (
        fields["strategy"] is None and fields["env"] is None and fields["max_calls"] == 0 and fields["labels"] is None
    )
    assert len(templates) == 1


@pytest.mark.parametrize(
    "args,kwargs,text",
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"c": 2}, "got an unexpected keyword argument 'c'"),
        ((1,), {"a": 2}, "multiple values for argument 'a'"),
    ],
)
def test_arguments_are_checked_at_the_call(calls, args, kwargs, text):
    g = ray.remote(f)
    for one in (g, g.options(num_cpus=2)):
        with pytest.raises(TypeError) as e:
            one.remote(*args, **kwargs)
        assert str(e.value) == text
    assert len(calls) == 1


def test_options_override_key_by_key(calls):
    g = ray.remote(num_cpus=2, max_retries=5, num_returns=2)(f)
    h = g.options(num_cpus=1, resources={"x": 1})
    h.remote(1)
    h.remote(2)
    g.remote(1)
    templates, first, second, third = calls
    assert first[0]["resources"] == {"CPU": 10000, "x": 10000} and first[0]["max_retries"] == 5 and first[3] == 2
    assert first[0] is second[0]
    assert third[0]["resources"] == {"CPU": 20000}
    assert not hasattr(h, "options")


def test_equal_options_share_a_template(calls):
    g = ray.remote(f)
    for i in range(50):
        g.options(num_cpus=2, name=f"call {i}").remote(i)
    assert len(calls[0]) == 1
    assert calls[1][4] == {"name": "call 0"} and calls[50][4] == {"name": "call 49"}


def test_kept_templates_are_bounded(calls):
    g = ray.remote(f)
    for i in range(1, 400):
        g.options(num_cpus=i).remote(1)
    assert len(g._templates) <= 128


def test_templates_do_not_outlive_the_connection(calls, monkeypatch):
    g = ray.remote(f)
    h = g.options(num_cpus=2)
    g.remote(1)
    h.remote(1)
    other = FakeClient()
    monkeypatch.setattr(_core.state, "client", other)
    g.remote(1)
    h.remote(1)
    assert len(calls[0]) == 4


def test_no_connection_no_call(monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "0")
    with pytest.raises(ray.exceptions.RaySystemError, match="Ray has not been started yet"):
        ray.remote(f).remote(1)


def test_underscore_remote(calls):
    ray.remote(f)._remote([1], {"b": 2}, num_cpus=3)
    assert calls[1][0]["resources"] == {"CPU": 30000} and calls[1][1:3] == ((1,), {"b": 2})


def test_returns_of_generators(calls):
    def g():
        yield 1

    for options, returned in (
        ({}, _core.STREAMING),
        ({"num_returns": "streaming"}, _core.STREAMING),
        ({"num_returns": "dynamic"}, _core.DYNAMIC),
        ({"num_returns": 3}, 3),
    ):
        remote = ray.remote(**options)(g) if options else ray.remote(g)
        remote.remote()
        assert calls[-1][3] == returned
    ray.remote(_generator_backpressure_num_objects=5)(g).remote()
    assert calls[-1][0]["backpressure"] == 5


def test_env_vars_are_merged(calls, monkeypatch):
    monkeypatch.setattr(_core.state, "runtime_env", {"env_vars": {"A": "job", "B": "job"}})
    g = ray.remote(f)
    g.remote(1)
    g.options(runtime_env={"env_vars": {"B": "task", "C": "task"}}).remote(1)
    monkeypatch.setattr(_core.state, "runtime_env", {"env_vars": {"A": "parent"}})
    ray.remote(f).options(runtime_env={"env_vars": {"C": "task"}}).remote(1)
    assert calls[1][0]["env"]["env_vars"] == {"A": "job", "B": "job"}
    assert calls[2][0]["env"]["env_vars"] == {"A": "job", "B": "task", "C": "task"}
    assert calls[3][0]["env"]["env_vars"] == {"A": "parent", "C": "task"}


def test_late_faults_show_at_the_call(calls):
    for options, error in (
        ({"num_gpus": 1.5}, ValueError),
        ({"scheduling_strategy": "FOO"}, ValueError),
        ({"resources": {"memory": 1}}, ValueError),
        ({"_labels": {"a": "b"}}, NotImplementedError),
    ):
        with pytest.raises(error):
            ray.remote(f).options(**options).remote(1)
    assert len(calls) == 1


def test_actor_classes():
    class A:
        pass

    actor_class = ray.remote(A)
    assert isinstance(actor_class, ray.actor.ActorClass) and actor_class.__ray_actor_class__ is A
    with pytest.raises(
        TypeError, match=r"Actors cannot be instantiated directly. Instead of 'A\(\)', use 'A.remote\(\)'."
    ):
        actor_class()
    with pytest.raises(ray.actor.ActorClassInheritanceException, match="Inheriting from actor classes is not"):

        class B(actor_class):
            pass


def test_method_decorator():
    with pytest.raises(AssertionError, match="Unexpected keyword argument to @ray.method: 'foo'"):
        ray.method(foo=1)
    assert ray.method(f) is f and ray.method()(f) is f
    assert ray.method(num_returns=2)(f).__ray_num_returns__ == 2
    del f.__ray_num_returns__
    with pytest.raises(TypeError, match="exit_actor API is called on a non-actor worker"):
        ray.actor.exit_actor()


def test_invocation_decorator(calls):
    def backwards(invoke):
        def call(args, kwargs):
            return invoke(args[::-1], {"b": 5}), kwargs

        return call

    def g(a, c, b=0):
        return a, c, b

    g.__ray_invocation_decorator__ = backwards
    for remote in (ray.remote(g), ray.remote(g).options(num_cpus=2)):
        assert remote.remote(1, 2, b=4) == ("ref", {"b": 4})
        assert calls[-1][1:3] == ((2, 1), {"b": 5})
