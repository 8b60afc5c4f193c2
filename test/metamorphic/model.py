"""The sequential model of a program: everything happens at once, in the order in which it is asked for."""

import contextlib

import programs


class Ref:
    """An object: its value, or its error, or one that never comes."""

    def __init__(self, value=None, error=None, never=False):
        self.value, self.error, self.never = value, error, never


class Cancelled(Exception):
    """It was cancelled."""


class Dead(Exception):
    """The actor is dead."""


class Actor:
    """An actor that lives or does not."""

    def __init__(self):
        self.state = programs.State(contextlib.nullcontext())
        self.alive = True


class Api:
    """What :class:`programs.Run` needs."""

    KINDS = ((programs.Failed, "Failed"), (Cancelled, "Cancelled"), (Dead, "Dead"))

    def kind(self, error):
        """The word for an error."""
        for cls, word in self.KINDS:
            if isinstance(error, cls):
                return word
        raise error

    def is_ref(self, value):
        """Whether a value is a ref."""
        return isinstance(value, Ref)

    def put(self, value):
        """As ray.put."""
        return Ref(value)

    def get(self, ref):
        """As ray.get."""
        assert not ref.never, "a program waits for what never comes"
        if ref.error is not None:
            raise ref.error
        return ref.value

    def wait(self, refs, n):
        """As ray.wait."""
        return refs[:n], refs[n:]

    def _do(self, args, work, alive=True):
        """The refs of what work does with the values of args."""
        if not alive:  # whatever the arguments are
            return None, Dead()
        values = []
        for a in args:
            if isinstance(a, Ref):
                if a.error is not None:
                    return None, a.error
                a = a.value
            values.append(a)
        try:
            return work(values), None
        except programs.Failed as e:
            return None, e

    def call(self, s, run, args):
        """Call a task."""
        value, error = self._do(args, lambda values: programs.in_task(self, s, run, values))
        if s["returns"] == 1:
            return Ref(value, error)
        return [Ref(value[k] if error is None else None, error) for k in range(s["returns"])]

    def actor(self, s, run):
        """Make an actor."""
        return Actor()

    def method(self, actor, method, name, args):
        """Call a method."""
        return Ref(*self._do(args, lambda v: getattr(actor.state, method)(*((name, v))), actor.alive))

    def gen(self, actor, s, args):
        """Call a generator."""
        made, error = self._do(args, lambda values: values, actor is None or actor.alive)

        def refs():
            if error is not None:
                yield Ref(error=error)
                return
            it = programs.items(self, s, made)
            while True:
                try:
                    yield Ref(next(it))
                except StopIteration:
                    return
                except programs.Failed as e:
                    yield Ref(error=e)
                    return

        return refs()

    def flaky(self, actor, s):
        """Call a task that fails for some attempts."""
        if not actor.alive:
            return Ref(error=Dead())
        for _ in range(s["retries"] + 1):
            if actor.state.tried(s["id"]) > s["n"]:
                return Ref(s["id"])
        return Ref(error=programs.Failed(s["id"]))

    def cancelled(self, s, args, run):
        """Cancel something that never ends, and say what becomes of it."""
        return "Cancelled"

    def kill(self, actor):
        """As ray.kill."""
        actor.alive = False
