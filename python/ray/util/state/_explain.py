"""Why a task, an object or an actor is where it is."""

import json
from typing import Any, Dict, Optional, Union

from ray._missing import missing


class Explanation(Dict[str, Any]):
    """What the daemons of a cluster say of a task, an object or an actor; ``str()`` of it is the same in words.

    Attributes:
        text: The words, as ``ray explain`` prints them.
    """

    def __init__(self, report: Dict[str, Any], text: str):
        super().__init__(report)
        self.text = text

    def __str__(self) -> str:
        return self.text


def explain(subject: Union[str, Any], address: Optional[str] = None) -> Explanation:
    """Say why a task, an object or an actor is where it is.

    For a task: its place in its queue, what each node lacks for it, which arguments are missing and why. For an object: where
    it is made and kept, who holds it and who waits for it. For an actor: its incarnations and how they ended, what it runs,
    whose calls wait, and what it waits for itself. docs/explain.md has the keys.

    Args:
        subject: An ``ObjectRef``, an actor's handle, an id of ``ray._ids``, or such an id in hexadecimal.
        address: Another cluster. Not there yet.

    Raises:
        ValueError: ``subject`` is no id of a task, an object or an actor.
        RaySystemError: This process is not connected.
    """
    if address is not None:
        raise missing("explaining in another cluster (explain(address=...))")
    from ray import _core
    from ray._api import _call_state

    actor_id = getattr(subject, "_actor_id", None)
    if actor_id is not None:
        subject = actor_id
    if not isinstance(subject, str):
        try:
            subject = subject.hex()
        except AttributeError:
            raise ValueError(f"{subject!r} is neither an ObjectRef nor an actor's handle nor an id") from None
    if _core.state.client is None:
        _call_state("explain")  # which raises
    answer = _core.call("explain", text=subject)
    return Explanation(json.loads(answer["report"]), answer["text"])
