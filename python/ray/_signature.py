"""Whether arguments fit a function, answered without building a signature for each call."""

from typing import Any, Callable, Dict, Optional, Tuple

_VARARGS, _VARKEYWORDS = 4, 8  # of code.co_flags
_ANY_NUMBER = 1 << 59  # of positional arguments
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200


class Arity:
    """What a function's parameters demand.

    ``least <= len(args) <= most`` alone admits a call without keywords; every other call goes through :meth:`check`.
    """

    __slots__ = ("least", "most", "names", "required", "keywords", "positional")

    def __init__(
        self,
        least: int,
        most: float,
        positional: Tuple[str, ...],
        names: frozenset,
        required: frozenset,
        keywords: bool,
    ):
        self.least = least
        self.most = most
        self.positional = positional  # those that can be named, in order; the positional-only ones as None
        self.names = names
        self.required = required
        self.keywords = keywords

    def __reduce__(self):
        return Arity, (self.least, self.most, self.positional, self.names, self.required, self.keywords)

    def without_first(self) -> "Arity":
        """The arity of a method whose first parameter, the instance, is bound."""
        if not self.positional:
            return self  # it goes into *args
        first = self.positional[0]
        return Arity(
            max(self.least - 1, 0),
            self.most if self.most >= _ANY_NUMBER else self.most - 1,
            self.positional[1:],
            self.names - {first},
            self.required - {first},
            self.keywords,
        )

    def signature(self):
        """A signature with the same demands; defaults and the order of keyword-only parameters are not known."""
        from inspect import Parameter, Signature

        parameters = []
        for name in self.positional:
            default = Parameter.empty if name in self.required else None
            kind = Parameter.POSITIONAL_ONLY if name.startswith("/") else Parameter.POSITIONAL_OR_KEYWORD
            parameters.append(Parameter(name.lstrip("/"), kind, default=default))
        if self.most >= _ANY_NUMBER:
            parameters.append(Parameter("args", Parameter.VAR_POSITIONAL))
        for name in sorted(self.names.difference(self.positional)):
            default = Parameter.empty if name in self.required else None
            parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default))
        if self.keywords:
            parameters.append(Parameter("kwargs", Parameter.VAR_KEYWORD))
        return Signature(parameters)

    def check_call(self, args: tuple, kwargs: Optional[Dict[str, Any]]) -> None:
        """As :meth:`check`, where the function is not at hand."""
        if not self._fits(args, kwargs or {}):
            self.signature().bind(*args, **(kwargs or {}))

    def check(self, function: Callable[[], Callable], args: tuple, kwargs: Optional[Dict[str, Any]]) -> None:
        """Check a call.

        Args:
            function: Returns the function; called only for the error's text.
            args: Positional arguments.
            kwargs: Keyword arguments.

        Raises:
            TypeError: They don't fit, in the words of ``inspect.Signature.bind``.
        """
        if not self._fits(args, kwargs or {}):
            import inspect

            inspect.signature(function()).bind(*args, **(kwargs or {}))

    def _fits(self, args: tuple, kwargs: Dict[str, Any]) -> bool:
        if len(args) > self.most:
            return False
        if not self.keywords and not self.names.issuperset(kwargs):
            return False
        filled = self.positional[: len(args)]
        return kwargs.keys().isdisjoint(filled) and self.required.issubset((*filled, *kwargs))


def arity(function: Callable) -> Arity:
    """The arity of a function; decorators made with functools.wraps show through."""
    code, plain = getattr(function, "__code__", None), function
    if code is None or hasattr(function, "__wrapped__") or hasattr(function, "__signature__"):
        return _by_inspect(function)
    n, only = code.co_argcount, code.co_posonlyargcount
    names = code.co_varnames
    defaults = len(plain.__defaults__ or ())
    kwonly = names[n : n + code.co_kwonlyargcount]
    kwdefaults = plain.__kwdefaults__ or {}
    demanded = [k for k in kwonly if k not in kwdefaults]
    return _make(
        names[:n],
        only,
        n - defaults,
        bool(code.co_flags & _VARARGS),
        kwonly,
        demanded,
        bool(code.co_flags & _VARKEYWORDS),
    )


def _by_inspect(function: Callable) -> Arity:
    import inspect

    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    kwonly = [p for p in parameters if p.kind == p.KEYWORD_ONLY]
    return _make(
        tuple(p.name for p in positional),
        sum(p.kind == p.POSITIONAL_ONLY for p in positional),
        sum(p.default is p.empty for p in positional),
        any(p.kind == p.VAR_POSITIONAL for p in parameters),
        tuple(p.name for p in kwonly),
        [p.name for p in kwonly if p.default is p.empty],
        any(p.kind == p.VAR_KEYWORD for p in parameters),
    )


def _make(positional, only, needed, varargs, kwonly, demanded, keywords) -> Arity:
    # positional-only names can't be given by keyword, so they count under names that no keyword can have
    shown = tuple(("/" + name) if i < only else name for i, name in enumerate(positional))
    required = frozenset((*shown[:needed], *demanded))
    # a required keyword-only argument makes every call without keywords wrong
    least = needed if not demanded else 1 << 60
    most = _ANY_NUMBER if varargs else len(positional)
    return Arity(least, most, shown, frozenset((*shown[only:], *kwonly)), required, keywords)


def is_generator(function: Callable) -> bool:
    """Whether calling the function makes a generator, async or not."""
    return bool(_flags(function) & (_GENERATOR | _ASYNC_GENERATOR))


def is_coroutine(function: Callable) -> bool:
    """Whether calling the function makes a coroutine."""
    return bool(_flags(function) & _COROUTINE)


def is_async(function: Any) -> bool:
    """Whether calling the function makes a coroutine or an async generator."""
    return bool(_flags(function) & (_COROUTINE | _ASYNC_GENERATOR))


def _flags(function: Callable) -> int:
    code = getattr(function, "__code__", None)
    return getattr(code, "co_flags", 0)
