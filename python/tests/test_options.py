"""Options of remote functions, and what they mean for the engine. The texts are what Ray says, where users match on it."""

import pytest

import ray
from ray import _options
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
)

NODE = "ab" * 28


def f():
    pass


def g():
    yield 1


INFINITE = "only accepts None, 0, -1 or a positive integer, where -1 represents infinity."


@pytest.mark.parametrize(
    "options,error,text",
    [
        ({"num_cpus": -1}, ValueError, "The quantity of resource num_cpus cannot be negative"),
        ({"num_gpus": -0.5}, ValueError, "The quantity of resource num_gpus cannot be negative"),
        ({"memory": -1}, ValueError, "The quantity of resource memory cannot be negative"),
        ({"resources": {"x": -1}}, ValueError, "The quantity of resource x cannot be negative"),
        (
            {"num_cpus": 1e-5},
            ValueError,
            "The precision of the fractional quantity of resource num_cpus cannot go beyond 0.0001",
        ),
        (
            {"num_gpus": 1e-5},
            ValueError,
            "The precision of the fractional quantity of resource num_gpus cannot go beyond 0.0001",
        ),
        (
            {"resources": {"x": 1e-5}},
            ValueError,
            "The precision of the fractional quantity of resource x cannot go beyond 0.0001",
        ),
        (
            {"num_cpus": "a"},
            TypeError,
            "The type of keyword 'num_cpus' must be (<class 'float'>, <class 'int'>, <class 'NoneType'>), but received type "
            "<class 'str'>",
        ),
        (
            {"max_retries": 1.0},
            TypeError,
            "The type of keyword 'max_retries' must be (<class 'int'>, <class 'NoneType'>), but received type <class 'float'>",
        ),
        ({"max_retries": -2}, ValueError, f"The keyword 'max_retries' {INFINITE}"),
        ({"max_calls": -1}, ValueError, "The keyword 'max_calls' only accepts None, 0 or a positive integer."),
        (
            {"num_returns": 1.5},
            TypeError,
            "The type of keyword 'num_returns' must be (<class 'int'>, <class 'str'>, <class 'NoneType'>), but received type "
            "<class 'float'>",
        ),
        (
            {"resources": {"CPU": 1}},
            ValueError,
            "Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' keyword",
        ),
        (
            {"resources": {"GPU": 1}},
            ValueError,
            "Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' keyword",
        ),
        (
            {"num_cpus": float("inf")},
            ValueError,
            "The quantity of resource num_cpus must be a finite number, but received inf",
        ),
        (
            {"resources": {"TPU": 3}},
            ValueError,
            "The number of requested 'TPU' was set to 3 which is not a supported chip configuration. Supported configs: "
            "(1, 2, 4, 8)",
        ),
        (
            {"resources": {"HPU": 0.5}},
            ValueError,
            "HPU resource quantity must be whole numbers. The specified quantity 0.5 is invalid.",
        ),
        ({"object_store_memory": 10}, ValueError, "Setting 'object_store_memory' is not implemented for tasks"),
        ({"retry_exceptions": [1]}, ValueError, "retry_exceptions must be either a boolean or a list of exceptions"),
        (
            {"retry_exceptions": ValueError},
            TypeError,
            "The type of keyword 'retry_exceptions' must be (<class 'bool'>, <class 'list'>, <class 'tuple'>), but received type "
            "<class 'type'>",
        ),
        (
            {"enable_task_events": 5},
            TypeError,
            "The type of keyword 'enable_task_events' must be <class 'bool'>, but received type <class 'int'>",
        ),
        (
            {"fallback_strategy": [{"x": 1}]},
            ValueError,
            "Unsupported option found: 'x'. Only ['label_selector'] is currently supported.",
        ),
        ({"fallback_strategy": [{}]}, ValueError, "Empty dictionary found in `fallback_strategy`."),
        (
            {"fallback_strategy": [1]},
            ValueError,
            "Each element in fallback_strategy must be a dictionary, but received 1.",
        ),
        (
            {"fallback_strategy": [{"label_selector": 1}]},
            ValueError,
            'The value of "label_selector" must be a dictionary, but received 1.',
        ),
        (
            {"runtime_env": {"env_vars": {"a": 1}}},
            TypeError,
            "runtime_env['env_vars'] must be of type Dict[str, str], but the value 1 is of type <class 'int'>",
        ),
        (
            {"runtime_env": {"working_dir": "."}},
            ValueError,
            ". is not a valid URI. Passing directories or modules to be dynamically uploaded is only supported at the job level "
            "(i.e., passed to `ray.init`).",
        ),
        (
            {"num_returns": "streaming"},
            ValueError,
            "num_returns='streaming' can only be used with generator functions (functions that use 'yield'). The decorated "
            "function is not a generator function.",
        ),
    ],
)
def test_refused(options, error, text):
    for use in (lambda: ray.remote(**options)(f), lambda: ray.remote(f).options(**options)):
        with pytest.raises(error) as e:
            use()
        assert str(e.value) == text


@pytest.mark.parametrize("value", [-1, "foo"])
def test_num_returns_out_of_bounds(value):
    with pytest.raises(ValueError, match="'num_returns' only accepts None, a non-negative integer, 'streaming'"):
        ray.remote(num_returns=value)(f)


@pytest.mark.parametrize("name", ["foo", "max_restarts", "lifetime", "_metadata", "get_if_exists"])
def test_unknown_option(name):
    with pytest.raises(
        ValueError, match=f"Invalid option keyword {name} for remote functions. Valid ones are \\['label_sel"
    ):
        ray.remote(**{name: 1})(f)


def test_unknown_actor_option():
    with pytest.raises(ValueError, match="Invalid option keyword max_retries for actors. Valid ones are"):
        ray.remote(max_retries=1)(type("A", (), {}))


def test_max_calls_is_for_the_decorator():
    ray.remote(max_calls=2)(f)
    with pytest.raises(ValueError, match=r"Setting 'max_calls' is not supported in '.options\(\)'"):
        ray.remote(f).options(max_calls=2)


@pytest.mark.parametrize(
    "options",
    [
        {"num_cpus": True},
        {"num_cpus": None},
        {"num_gpus": 1.5},
        {"memory": 1.5},
        {"max_retries": -1},
        {"num_returns": 0},
        {"retry_exceptions": (ValueError, KeyError)},
        {"label_selector": {"a": "in(b,c)", "ray.io/x": "!d"}},
        {"scheduling_strategy": "FOO"},
        {"placement_group": "default"},
        {"placement_group": None},
        {"enable_task_events": False},
    ],
)
def test_accepted(options):
    ray.remote(**options)(f)
    ray.remote(f).options(**options)


@pytest.mark.parametrize(
    "selector", [{"a": "in("}, {"a b": "c"}, {"": "c"}, {"a": "b c"}, {"a": "x" * 64}, {"UP_/a": "b"}, {"a": "in(b,)"}]
)
def test_bad_selectors(selector):
    with pytest.raises(ValueError, match="Invalid label"):
        ray.remote(label_selector=selector)(f)


@pytest.mark.parametrize(
    "options,resources",
    [
        ({}, {"CPU": 10000}),
        ({"num_cpus": 0}, {}),
        ({"num_cpus": 0.5, "num_gpus": 2}, {"CPU": 5000, "GPU": 20000}),
        ({"num_cpus": 0, "resources": {"a": 0.0001, "b": 3}}, {"a": 1, "b": 30000}),
        ({"num_cpus": 0, "memory": 100.9}, {"memory": 1000000}),
        ({"accelerator_type": "A100"}, {"CPU": 10000, "accelerator_type:A100": 10}),
        ({"num_cpus": 0.1 + 0.2}, {"CPU": 3000}),
        ({"num_cpus": 1.5, "resources": {"x": 2.5}}, {"CPU": 15000, "x": 25000}),
    ],
)
def test_task_resources(options, resources):
    assert _options.task_resources(options) == resources


@pytest.mark.parametrize(
    "options", [{"num_gpus": 1.5}, {"resources": {"TPU": 2.5}}, {"resources": {"neuron_cores": 1.1}}]
)
def test_devices_are_whole(options):
    with pytest.raises(ValueError, match="must be whole numbers"):
        _options.task_resources(options)


@pytest.mark.parametrize("name", ["memory", "object_store_memory"])
def test_memory_is_no_custom_resource(name):
    with pytest.raises(ValueError, match="must not contain the key 'memory' or 'object_store_memory'"):
        _options.task_resources({"resources": {name: 1}})


def test_defaults(monkeypatch):
    monkeypatch.delenv("RAY_TASK_MAX_RETRIES", raising=False)
    assert _options.max_retries({}) == 3
    assert _options.max_retries({"max_retries": 0}) == 0
    monkeypatch.setenv("RAY_TASK_MAX_RETRIES", "7")
    assert _options.max_retries({}) == 7
    assert _options.max_calls({}) == 0
    assert _options.max_calls({"num_gpus": 0.5}) == 1
    assert _options.max_calls({"num_gpus": 1, "max_calls": 3}) == 3
    assert _options.retry_exceptions({}) is False
    assert _options.retry_exceptions({"retry_exceptions": [ValueError]}) == (ValueError,)


@pytest.mark.parametrize(
    "options,strategy,labels,fallback",
    [
        ({}, None, None, []),
        ({"scheduling_strategy": "DEFAULT"}, None, None, []),
        ({"scheduling_strategy": "SPREAD"}, "SPREAD", None, []),
        ({"label_selector": {"a": "b"}}, None, {"a": "b"}, []),
        ({"scheduling_strategy": PlacementGroupSchedulingStrategy(None)}, None, None, []),
        (
            {
                "label_selector": {"a": "b"},
                "fallback_strategy": [{"label_selector": {"a": "c"}}, {"label_selector": {}}],
            },
            None,
            {"a": "b"},
            [{"a": "c"}, {}],
        ),
        (
            {"scheduling_strategy": NodeLabelSchedulingStrategy({"a": Exists(), "b": DoesNotExist()})},
            None,
            {"a": "*", "b": "!*"},
            [],
        ),
        (
            {"scheduling_strategy": NodeLabelSchedulingStrategy({"a": In("b")}, soft={"c": In("d")})},
            None,
            {"a": "in(b)", "c": "in(d)"},
            [{"a": "in(b)"}],
        ),
        ({"scheduling_strategy": NodeLabelSchedulingStrategy({}, soft={"a": In("b")})}, None, {"a": "in(b)"}, [{}]),
        (
            {"scheduling_strategy": NodeAffinitySchedulingStrategy(NODE, soft=False)},
            {"node": b"\xab" * 28, "soft": False, "spill": False, "fail": False},
            None,
            [],
        ),
        (
            {"scheduling_strategy": NodeAffinitySchedulingStrategy(NODE, soft=True, _spill_on_unavailable=True)},
            {"node": b"\xab" * 28, "soft": True, "spill": True, "fail": False},
            None,
            [],
        ),
        (
            {
                "scheduling_strategy": NodeLabelSchedulingStrategy({"a": In("b", "c"), "d": NotIn("e")}),
                "label_selector": {"x": "y"},
            },
            None,
            {"a": "in(b,c)", "d": "!in(e)", "x": "y"},
            [],
        ),
    ],
)
def test_strategies(options, strategy, labels, fallback):
    place = _options.placement(options)
    assert place == (strategy, labels, fallback)
    hash(place.key)
    assert place.fields() == {"strategy": strategy, "labels": labels, **({"fallback": fallback} if fallback else {})}


def test_unknown_strategy():
    with pytest.raises(ValueError, match="Invalid scheduling_strategy value FOO. Valid values are"):
        _options.placement({"scheduling_strategy": "FOO"})
    with pytest.raises(TypeError, match="The type of keyword 'scheduling_strategy' must be"):
        ray.remote(scheduling_strategy=5)(f)


@pytest.mark.parametrize(
    "options",
    [
        {"placement_group": PlacementGroup(ray.PlacementGroupID.from_random())},
        {"placement_group_capture_child_tasks": True},
        {"scheduling_strategy": PlacementGroupSchedulingStrategy(PlacementGroup(ray.PlacementGroupID.from_random()))},
    ],
)
def test_strategies_that_are_not_there(options):
    with pytest.raises(NotImplementedError, match="Gray does not have this yet"):
        _options.placement(options)


def test_group_with_strategy():
    group = PlacementGroup(ray.PlacementGroupID.from_random())
    with pytest.raises(ValueError, match="scheduling_strategy option"):
        ray.remote(scheduling_strategy="SPREAD", placement_group=group)(f)
    with pytest.raises(ValueError, match="the value of bundle index must be -1"):
        _options.placement({"placement_group_bundle_index": 0})


@pytest.mark.parametrize("options", [{"_labels": {"a": "b"}}])
def test_options_that_are_not_there(options):
    with pytest.raises(NotImplementedError, match="the option _"):
        _options.check_there(options)


@pytest.mark.parametrize("node_id", ["zz", "ab", b"ab", "ff" * 28, 5])
def test_bad_node_ids(node_id):
    with pytest.raises(ValueError, match="Invalid node_id .*Node ID must be a valid hex string"):
        NodeAffinitySchedulingStrategy(node_id, soft=True)


def test_affinity_flags():
    with pytest.raises(ValueError, match="_spill_on_unavailable cannot be set when soft is False"):
        NodeAffinitySchedulingStrategy(NODE, soft=False, _spill_on_unavailable=True)
    with pytest.raises(ValueError, match="_fail_on_unavailable cannot be set when soft is True"):
        NodeAffinitySchedulingStrategy(NODE, soft=True, _fail_on_unavailable=True)


@pytest.mark.parametrize("hard,soft", [(5, None), ({"a": 5}, None), ({}, None), ({5: In("a")}, None), ({}, 5)])
def test_bad_label_strategies(hard, soft):
    with pytest.raises(ValueError):
        NodeLabelSchedulingStrategy(hard, soft=soft)


def test_label_values_are_texts():
    with pytest.raises(ValueError, match="Type of value in position 0 for the In operator must be str"):
        In(5)
