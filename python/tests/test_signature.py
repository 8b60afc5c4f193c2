"""Arguments are checked at the call, with the words of inspect, and without its cost."""

import functools
import inspect
import itertools
import pickle

import pytest

from ray._signature import arity, is_coroutine, is_generator


def none():
    pass


def one(a):
    pass


def default(a, b=2):
    pass


def star(a, *b):
    pass


def keywords(a, **k):
    pass


def kwonly(a, *, b, c=3):
    pass


def posonly(a, b=1, /, c=2):
    pass


def posonly_keywords(a, /, **k):
    pass


def everything(a, b=2, /, c=3, *d, e, f=6, **g):
    pass


@functools.wraps(default)
def wrapped(*args, **kwargs):
    pass


FUNCTIONS = [
    none,
    one,
    default,
    star,
    keywords,
    kwonly,
    posonly,
    posonly_keywords,
    everything,
    wrapped,
    lambda x, y=1: x,
]


def outcome(call):
    try:
        call()
    except TypeError as e:
        return str(e)
    return None


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_agrees_with_inspect(function):
    a = pickle.loads(pickle.dumps(arity(function)))
    names = "abcdez"
    calls = [
        (args, kwargs)
        for n in range(5)
        for args in [tuple(range(n))]
        for k in range(4)
        for chosen in itertools.combinations(names, k)
        for kwargs in [dict.fromkeys(chosen)]
    ]
    for args, kwargs in calls:
        want = outcome(lambda: inspect.signature(function).bind(*args, **kwargs))  # noqa: B023
        got = outcome(lambda: a.check(lambda: function, args, kwargs))  # noqa: B023
        if want and "positional only" in want and got is None:
            function(*args, **kwargs)  # older inspects refuse what Python takes: **g may have a positional-only name
            continue
        assert got == want, (args, kwargs)
        if not kwargs and a.least <= len(args) <= a.most:
            assert want is None, args


def test_the_function_is_not_needed_for_a_call_that_fits():
    def fail():
        raise AssertionError("the function was loaded")

    arity(default).check(fail, (1,), {"b": 2})


@pytest.mark.parametrize(
    "function,text",
    [
        (one, "missing a required argument: 'a'"),
        (none, None),
    ],
)
def test_texts(function, text):
    assert outcome(lambda: arity(function).check(lambda: function, (), {})) == text
    assert outcome(lambda: arity(function).check(lambda: function, (1, 2), {})) == "too many positional arguments"
    assert "unexpected keyword argument 'q'" in outcome(
        lambda: arity(function).check(lambda: function, (1,) if text else (), {"q": 1})
    )


def test_kinds():
    async def coroutine():
        pass

    async def async_generator():
        yield

    def generator():
        yield

    assert is_coroutine(coroutine) and not is_coroutine(one)
    assert is_generator(generator) and is_generator(async_generator) and not is_generator(one)
