"""Compares what the callers of a chaos run saw with what its actors did."""

import collections
import pathlib

KNOWN = ("ActorDiedError", "ActorUnavailableError")
# What a call may end with besides if its argument or its value was on a node that was killed.
OF_NODES = (
    "ObjectLostError",
    "OwnerDiedError",
    "NodeDiedError",
    "ObjectFetchTimedOutError",
    "ReferenceCountingAssertionError",
)


def check(folder, nodes_died):
    """Everything that is wrong, as texts, and figures of what happened."""
    folder = pathlib.Path(folder)
    wrong = []
    ends = collections.Counter()
    actor_of, outcome = {}, {}
    for path in sorted((folder / "calls").iterdir()):
        asked, done = [], False
        for row in path.read_text().splitlines():
            word, _, rest = row.partition(" ")
            if word == "asks":
                call, actor = rest.split()
                actor_of[call] = actor
                asked.append(call)
            elif word == "ends":
                call, how, *more = rest.split(" ", 2)
                if call in outcome:
                    wrong.append(f"{call} ended twice")
                outcome[call] = (how, *more)
            elif word == "hangs":
                wrong.append(f"{rest} to {actor_of[rest]} hangs")
            done = done or word == "done"
        if done:
            wrong += [f"{call} to {actor_of[call]} never ended" for call in asked if call not in outcome]
    ran = collections.defaultdict(list)
    incarnations = 0
    for actor in sorted((folder / "runs").iterdir()):
        ordered = actor.name.startswith("sync-")
        for path in sorted(actor.iterdir()):
            incarnations += 1
            last = {}
            for call in path.read_text().split():
                ran[call].append(path.name)
                if actor_of.get(call) != actor.name:
                    wrong.append(f"{call} ran in {actor.name}, but was for {actor_of.get(call)}")
                caller, _, seq = call.rpartition(":")
                if ordered and int(seq) <= last.get(caller, 0):
                    wrong.append(f"{actor.name}/{path.name}: {call} ran after {caller}:{last[caller]}")
                last[caller] = int(seq)
    for call, marks in ran.items():
        retries = actor_of[call].split(".")[0].rpartition("-")[2] if call in actor_of else "0"
        most = {"inf": len(marks)}.get(retries) or int(retries) + 1
        if len(marks) > most or len(set(marks)) < len(marks):
            wrong.append(
                f"{call} ran {len(marks)} times, in {marks}, with max_task_retries={retries} of {actor_of.get(call)}"
            )
    for call, (how, *more) in outcome.items():
        text = more[0] if more else ""
        name = text.split(" ")[0]
        _, restarts, retries = actor_of[call].split(".")[0].split("-")
        if how == "value":
            ends["value"] += 1
            if text not in ran[call]:
                wrong.append(f"{call} has a value of {text}, but ran in {ran[call]}")
        elif how == "error" and name in (KNOWN + (OF_NODES if nodes_died else ())):
            ends[name] += 1
            if name == "ActorUnavailableError" and (restarts == "0" or retries == "inf"):
                wrong.append(f"{call} to {actor_of[call]} ended with {text}")
        else:
            wrong.append(f"{call} to {actor_of[call]} ended with {how} {text}")
    figures = {"calls": len(outcome), **ends, "ran": sum(map(len, ran.values())), "incarnations": incarnations}
    return wrong, figures
