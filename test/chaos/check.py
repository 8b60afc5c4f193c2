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
OF_NODES += tuple(f"RayTaskError({name})" for name in OF_NODES)  # as the cause that an argument could not be computed
# An attempt that was on its way when its task was cancelled starts within this time: a daemon stands still for 4 s at most.
RETRY_S = 15


def check(folder, nodes_died):
    """Everything that is wrong, as texts, and figures of what happened."""
    folder = pathlib.Path(folder)
    wrong = []
    ends = collections.Counter()
    actor_of, outcome, cancelled = {}, {}, set()
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
            elif word == "cancels":
                cancelled.add(rest)
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
        elif how == "error" and name == "TaskCancelledError" and call in cancelled:
            ends[name] += 1
        elif how == "error" and name in (KNOWN + (OF_NODES if nodes_died else ())):
            ends[name] += 1
            if name == "ActorUnavailableError" and call not in cancelled and (restarts == "0" or retries == "inf"):
                wrong.append(f"{call} to {actor_of[call]} ended with {text}")
        else:
            wrong.append(f"{call} to {actor_of[call]} ended with {how} {text}")
    figures = {"calls": len(outcome), **ends, "ran": sum(map(len, ran.values())), "incarnations": incarnations}
    more, figures["tasks"] = check_tasks(folder, nodes_died)
    return wrong + more, figures


def check_tasks(folder, nodes_died):
    """The same of the tasks that were called to be cancelled (see :mod:`cancels`)."""
    wrong, ends = [], collections.Counter()
    started = collections.defaultdict(list)
    for path in (folder / "starts").glob("*"):
        for row in path.read_text().splitlines():
            task, when = row.split()
            started[task].append(float(when))
    for path in sorted((folder / "tasks").glob("*")):
        kinds, cancels, ended, done = {}, {}, {}, False
        for row in path.read_text().splitlines():
            word, _, rest = row.partition(" ")
            if word == "asks":
                task, kinds[task] = rest.split()
            elif word == "cancels":
                task, when, *how = rest.split()
                cancels[task] = float(when)
            elif word == "ends":
                task, how, *more = rest.split(" ", 2)
                ended[task] = (how, *more)
                text = " ".join(more)
                if not _may_end(kinds[task], task in cancels, how, text.split(" ")[0], nodes_died):
                    wrong.append(f"{task}, which {kinds[task]}, {cancels.get(task)}, ended with {how} {text}")
                ends[text.split(" ")[0] or how] += 1
            elif word in ("hangs", "lives"):
                wrong.append(f"{path.name}: {row}; it {kinds.get(rest.split()[0])}")
            done = done or word == "done"
        if done:
            wrong += [f"{task} never ended" for task in kinds if task not in ended]
        for task, when in cancels.items():
            late = [s - when for s in started[task] if s > when + RETRY_S]
            if late:
                wrong.append(f"{task}, which {kinds[task]}, starts {late[0]:.1f} s after it was cancelled")
    return wrong, dict(ends)


def _may_end(kind, cancelled, how, error, nodes_died):
    """Whether a task of this kind may end so."""
    if how == "value":
        return kind == "ends"
    if how != "error":
        return False
    if error == "TaskCancelledError":
        return cancelled
    if kind == "raises" and error == "RayTaskError(ValueError)":
        return True  # the last thing that it did
    if error == "WorkerCrashedError" or nodes_died and error == "NodeDiedError":
        return kind == "spins-0"
    return bool(nodes_died and error in OF_NODES)
