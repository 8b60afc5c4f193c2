"""Random programs whose answers do not depend on when things happen.

A program is a list of statements, each a dict with an ``id`` that names what it makes; tasks have bodies, which are programs,
too. The same seed gives the same program for ever, and :func:`run` the same answers wherever it is carried out: by Gray, by
Ray, or by the sequential model in :mod:`model`.

What makes that so: an actor whose state depends on the order of its calls has one caller; what several callers do commutes;
sums are asked for when all is done that adds to them; what is cancelled waits for something that never comes.

A statement that mentions what is not there is left out, so that a program stays one when statements are dropped from it.
"""

import random
import time
import zlib

SMALL, BIG = 100, 150_000  # bytes; the store keeps what is larger than 100 KiB


class Maker:
    """Makes one program."""

    def __init__(self, seed, size, cancels):
        self.rng = random.Random(f"program {seed}")
        self.count = 0
        self.left = size
        self.cancels = cancels
        self.kinds = {}  # of actors

    def body(self, depth, given=()):
        """Statements; ``given`` are the arguments: [(name, kind)]."""
        rng = self.rng
        has = {}  # name → kind
        for name, kind in given:
            has[name] = kind
        made = []
        adds = {}  # actor → tasks that add to it
        for _ in range(rng.randint(8, 20) if depth == 0 else rng.randint(0, 4)):
            if self.left <= 0:
                break
            self.left -= 1
            made.append(self.statement(depth, has, adds))
        if depth == 0:
            for name, kind in list(has.items()):
                if kind == "ref" and rng.random() < 0.7:
                    made.append(self.new("get", of=name))
                elif kind == "actor" and name[0] != "_":
                    made.append(self.new("total", of=name, after=adds.get(name, [])))
        return made

    def new(self, op, **fields):
        self.count += 1
        return {"id": f"{op}{self.count}", "op": op, **fields}

    def some(self, has, kind, most):
        names = [n for n, k in has.items() if k == kind]
        return [self.rng.choice(names) for _ in range(self.rng.randint(0, most))] if names else []

    def arguments(self, has):
        """Arguments of a call, and what its body calls them."""
        rng = self.rng
        args, given = [], []
        for i in range(rng.randint(0, 3)):
            draw = rng.random()
            refs = self.some(has, "ref", 2)
            actors = [n for n, k in has.items() if k == "actor"]
            if draw < 0.3 or not refs and draw < 0.8:
                args.append({"int": rng.randrange(1000)})
            elif draw < 0.6:
                args.append({"value": refs[0]})
            elif draw < 0.8:
                args.append({"refs": refs})
                given += [(f"_{i}_{k}", "ref") for k in range(len(refs))]
            elif actors:
                args.append({"actor": rng.choice(actors)})
                given.append((f"_{i}", "actor"))
        return args, given

    def statement(self, depth, has, adds):
        """One statement, of those that are possible here."""
        rng = self.rng
        actors = [n for n, k in has.items() if k == "actor"]
        mine = [n for n in actors if n[0] != "_"]
        gens = [n for n, k in has.items() if k == "gen"]
        refs = [n for n, k in has.items() if k == "ref"]
        loose = [
            n for n in refs if n.startswith("put") or n.startswith("call") and not any(n in a for a in adds.values())
        ]
        possible = {
            "put": 2, "call": (8, 4, 3, 0)[depth], "actor": 2 if depth < 2 and len(mine) < 3 else 0, "method": 8 if actors else 0, "gen": 2,
            "read": 5 if gens else 0, "get": 2 if refs else 0, "wait": 1 if refs else 0, "flaky": 1 if mine and depth < 2 else 0,
            "cancel": 1 if self.cancels and depth < 2 else 0, "kill": 0.5 if mine else 0, "drop": 1 if loose or gens else 0,
        }  # fmt: skip
        op = rng.choices(list(possible), list(possible.values()))[0]
        only_refs = {n: k for n, k in has.items() if k == "ref"}
        if op == "put":
            inner = self.some(has, "ref", 2)
            what = {"refs": inner} if inner and rng.random() < 0.4 else {"bytes": rng.choice((1, SMALL, BIG))}
            return self.keep(has, "ref", self.new(op, what=what))
        if op == "call":
            args, given = self.arguments(has)
            s = self.new(
                op, args=args, cpus=rng.choice((1, 1, 0.5, 0)), spread=rng.random() < 0.4,
                returns=rng.choice((1, 1, 1, 2, 3)), fails=rng.random() < 0.12, big=rng.random() < 0.15, gives_ref=rng.random() < 0.2,
            )  # fmt: skip
            s["body"] = self.body(depth + 1, given)
            for a in args:
                if "actor" in a:
                    adds.setdefault(a["actor"], []).append(s["id"])
            return self.keep(has, "ref", s)
        if op == "actor":
            kind = rng.choice(("sync", "sync", "async", "threads"))
            self.kinds[f"actor{self.count + 1}"] = kind
            s = self.new(op, kind=kind, named=rng.random() < 0.3, spread=rng.random() < 0.4)
            return self.keep(has, "actor", s)
        if op == "method":
            actor = rng.choice(actors)
            args, _ = self.arguments(only_refs)
            method = "add"
            if actor in mine:
                method = rng.choice(
                    ("chain", "chain", "add", "fail") if self.kinds[actor] == "sync" else ("add", "fail")
                )
            return self.keep(has, "ref", self.new(op, of=actor, method=method, args=args, wait=actor not in mine))
        if op == "gen":
            args, _ = self.arguments(only_refs)
            n = rng.randrange(8)
            actor = rng.choice(mine) if mine and rng.random() < 0.4 else None
            bound = (
                rng.choice((None, None, 1, 3)) if actor is None else None
            )  # an actor would do nothing else until it is read
            fails_at = rng.randrange(n + 1) if rng.random() < 0.2 else None
            s = self.new(op, args=args, n=n, fails_at=fails_at, of=actor, bound=bound, big=rng.random() < 0.2)
            return self.keep(has, "gen", s)
        if op == "read":
            return self.new(op, of=rng.choice(gens), n=rng.choice((None, None, 0, 1, 3)))
        if op == "get":
            return self.new(op, of=rng.choice(refs))
        if op == "wait":
            some = sorted({rng.choice(refs) for _ in range(4)})
            return self.new(op, of=some, n=rng.randint(1, len(some)))
        if op == "flaky":
            return self.keep(
                has, "ref", self.new(op, of=rng.choice(mine), n=rng.randrange(3), retries=rng.randrange(3))
            )
        if op == "cancel":
            return self.new(op, what=rng.choice(self.cancels), args=[])
        if op == "kill":
            actor = rng.choice(mine)
            return self.new(op, of=actor, after=adds.get(actor, []))
        name = rng.choice(loose + gens)
        del has[name]
        return self.new("drop", of=name)

    @staticmethod
    def keep(has, kind, s):
        has[s["id"]] = kind
        return s


CANCELS = ("coroutine", "waits", "blocked")  # an actor's coroutine, a task that waits for its argument, one in a get


def make(seed, size=40, cancels=CANCELS):
    """The program of a seed."""
    return Maker(seed, size, cancels).body(0)


def digest(value):
    """A number for a value of a program; refs in it are followed by who asks."""
    if isinstance(value, (bytes, bytearray)):
        return zlib.crc32(value)
    if isinstance(value, (list, tuple)):
        return zlib.crc32(repr([digest(v) for v in value]).encode())
    return zlib.crc32(repr(value).encode())


def pattern(n, salt):
    """``n`` bytes that tell where they come from."""
    return (salt.encode() + b"|") * (n // (len(salt) + 1) + 1) if n > 1 else salt[:1].encode()


class Failed(ValueError):
    """What a task of a program raises."""


class Run:
    """One body that is carried out.

    Args:
        api: By whom: :class:`remote.Api`, or :class:`model.Api`.
        run: A word that no other run on the cluster has, for names.
    """

    def __init__(self, api, run, env=None):
        self.api = api
        self.run = run
        self.env = dict(env or {})
        self.answers = {}

    def body(self, statements):
        """Carry out statements; the answers by their ids."""
        for s in statements:
            names = s.get("of")
            needed = names if isinstance(names, list) else [names] if names else []
            for a in s.get("args", ()):
                needed = [*needed, *(a.get("refs") or [a.get("value") or a.get("actor")])]
            if s["op"] == "put":
                needed = s["what"].get("refs", [])
            if all(n in self.env for n in needed if n):
                getattr(self, "do_" + s["op"])(s)
        return self.answers

    def value(self, ref):
        """What a get gives: the digest of the value, refs in it followed, or the kind of the error."""
        try:
            got = self.api.get(ref)
            return self.followed(got)
        except Exception as e:
            return self.api.kind(e)

    def followed(self, value):
        if self.api.is_ref(value):
            return self.value(value)
        if isinstance(value, list):
            return digest([self.followed(v) for v in value])
        return digest(value)

    def arguments(self, s):
        out = []
        for a in s["args"]:
            if "int" in a:
                out.append(a["int"])
            elif "refs" in a:
                out.append([self.env[n] for n in a["refs"]])
            else:
                out.append(self.env[a.get("value") or a["actor"]])
        return out

    def settle(self, names):
        for n in names:
            if n in self.env:
                self.value(self.env[n])

    def do_put(self, s):
        what = s["what"]
        value = [self.env[n] for n in what["refs"]] if "refs" in what else pattern(what["bytes"], s["id"])
        self.env[s["id"]] = self.api.put(value)

    def do_call(self, s):
        got = self.api.call(s, self.run, self.arguments(s))
        if isinstance(got, list):
            self.env.update({f"{s['id']}_{k}": ref for k, ref in enumerate(got)})
            got = got[-1]
        self.env[s["id"]] = got

    def do_actor(self, s):
        self.env[s["id"]] = self.api.actor(s, self.run)

    def do_method(self, s):
        ref = self.api.method(self.env[s["of"]], s["method"], s["id"], self.arguments(s))
        self.env[s["id"]] = ref
        if s["wait"]:
            self.answers[s["id"]] = self.value(ref)

    def do_total(self, s):
        self.settle([*s["after"], *(n for n in self.env if n.startswith(("method", "flaky", "call")))])
        self.answers[s["id"]] = self.value(self.api.method(self.env[s["of"]], "total", s["id"], []))

    def do_gen(self, s):
        self.env[s["id"]] = self.api.gen(self.env.get(s["of"]) if s["of"] else None, s, self.arguments(s))

    def do_read(self, s):
        gen, out = self.env[s["of"]], []
        while s["n"] is None or len(out) < s["n"]:
            try:
                ref = next(gen)
            except StopIteration:
                out.append("end")
                break
            except Exception as e:
                out.append(self.api.kind(e))
                break
            out.append(self.value(ref))
        self.answers[s["id"]] = out

    def do_get(self, s):
        self.answers[s["id"]] = self.value(self.env[s["of"]])

    def do_wait(self, s):
        refs = list(dict.fromkeys(self.env[n] for n in s["of"]))
        n = min(s["n"], len(refs))
        ready, rest = self.api.wait(refs, n)
        self.answers[s["id"]] = [len(ready), len(rest)]

    def do_flaky(self, s):
        self.env[s["id"]] = self.api.flaky(self.env[s["of"]], s)

    def do_cancel(self, s):
        self.answers[s["id"]] = self.api.cancelled(s, self.arguments(s), self)

    def do_kill(self, s):
        self.settle([*s["after"], *(n for n in self.env if n.startswith(("method", "flaky", "call")))])
        for n in [n for n in self.env if n.startswith("gen")]:  # they may be the actor's
            del self.env[n]
        self.api.kill(self.env[s["of"]])
        self.answers[s["id"]] = self.value(self.api.method(self.env[s["of"]], "total", s["id"], []))

    def do_drop(self, s):
        del self.env[s["of"]]


def in_task(api, s, run, args):
    """What a task of a program does: its body, then its answer."""
    env = {}
    for i, a in enumerate(args):
        if isinstance(a, list) and i < len(s["args"]) and "refs" in s["args"][i]:
            env.update({f"_{i}_{k}": ref for k, ref in enumerate(a)})
        elif "actor" in s["args"][i]:
            env[f"_{i}"] = a
    inner = Run(api, run, env)
    answers = inner.body(s["body"])
    # Whoever asks for a sum waits for this task, not for those below it.
    inner.settle([c["id"] for c in s["body"] if any("actor" in a for a in c.get("args", ()))])
    plain = [inner.followed(a) for i, a in enumerate(args) if "int" in s["args"][i] or "value" in s["args"][i]]
    if s["fails"]:
        raise Failed(s["id"])
    answer = digest([s["id"], sorted(answers.items()), plain])
    if s["big"]:
        answer = pattern(BIG, f"{answer}")
    if s["gives_ref"]:
        answer = [api.put(answer)]
    return answer if s["returns"] == 1 else [answer, *range(1, s["returns"])]


def items(api, s, args):
    """What a generator of a program yields."""
    for k in range(s["n"]):
        if s["fails_at"] == k:
            raise Failed(s["id"])
        yield pattern(BIG if s["big"] else SMALL, f"{s['id']}.{k}.{len(args)}")
    if s["fails_at"] == s["n"]:
        raise Failed(s["id"])


class State:
    """The state of an actor of a program; ``lock`` is for those with several threads."""

    def __init__(self, lock):
        self.chained = 0
        self.sum = 0
        self.tries = {}
        self.lock = lock

    def chain(self, name, args):
        self.chained = digest([self.chained, name, [0 if a is None else digest_plain(a) for a in args]])
        return self.chained

    def add(self, name, args):
        with self.lock:
            self.sum += digest(name) % 1000
        return name

    def fail(self, name, args):
        raise Failed(name)

    def total(self, name, args):
        with self.lock:
            return [self.sum, self.chained]

    def tried(self, name):
        with self.lock:
            self.tries[name] = self.tries.get(name, 0) + 1
            return self.tries[name]


def digest_plain(value):
    """The digest of a value, in which refs count as such."""
    if isinstance(value, list):
        return digest([digest_plain(v) for v in value])
    return digest(value) if isinstance(value, (bytes, int, str)) else 1


def drop(statements, gone):
    """A program without the statements whose ids are in ``gone``, in bodies, too."""
    out = []
    for s in statements:
        if s["id"] not in gone:
            out.append({**s, "body": drop(s["body"], gone)} if "body" in s else s)
    return out


def all_ids(statements):
    """The ids of all statements, those of bodies, too."""
    out = []
    for s in statements:
        out.append(s["id"])
        out += all_ids(s.get("body", []))
    return out


def shrink(program, fails, budget=60, seconds=120.0):
    """The smallest program found that still fails, dropping halves, then fewer and fewer statements.

    Args:
        program: One that fails.
        fails: Tells whether a program does.
        budget: How often it may be asked.
        seconds: After which it is asked no more: a program that hangs takes its time.
    """
    part, end = 2, time.monotonic() + seconds
    while budget > 0:
        ids = all_ids(program)
        size = max(len(ids) // part, 1)
        for at in range(0, len(ids), size):
            if budget <= 0 or time.monotonic() > end:
                return program
            budget -= 1
            less = drop(program, set(ids[at : at + size]))
            if fails(less):
                program = less
                break
        else:
            if size == 1:
                break
            part *= 2
    return program


def shown(statements, indent=""):
    """A program for people."""
    lines = []
    for s in statements:
        fields = " ".join(f"{k}={v!r}" for k, v in s.items() if k not in ("id", "op", "body"))
        lines.append(f"{indent}{s['id']}: {fields}")
        if s.get("body"):
            lines.append(shown(s["body"], indent + "    "))
    return "\n".join(lines)
