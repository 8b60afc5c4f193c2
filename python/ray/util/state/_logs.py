"""Log files over the state API: from a dashboard's port, or over the connection of this process."""

import codecs
import json
import time
from typing import Any, Dict, Generator, List, Optional
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from ray.util.state.exception import RayStateApiException, ServerUnavailable

_POLL = 0.5  # seconds between looks at a file that is followed
_PIECE = 64 << 10


class _Response:
    """What ``requests.HTTPError.response`` tells."""

    def __init__(self, status: int, text: str):
        self.status_code = status
        self.text = text
        self.content = text.encode()
        self.ok = False
        self.request = None


def names(client, node_id, node_ip, glob, timeout) -> Dict[str, List[str]]:
    query = _query({"node_id": node_id, "node_ip": node_ip, "glob": glob or "*"})
    if client._url is None:
        answer = _ask("list", query, timeout)
        status, body = answer["status"], answer["body"]
    else:
        status, body = 200, b""
        try:
            with _open(client, f"/api/v0/logs?{query}", timeout) as reply:
                body = reply.read()
        except HTTPError as e:
            status, body = e.code, e.read()
    if status != 200:
        raise _refused(status, body)
    return json.loads(body)["data"]["result"]


def text(client, asked, follow, timeout, encoding, errors) -> Generator[Any, None, None]:
    pieces = _over_url(client, asked, follow, timeout) if client._url else _over_connection(asked, follow, timeout)
    if encoding is None:
        yield from pieces
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors or "strict")  # characters may lie across pieces
    for piece in pieces:
        decoded = decoder.decode(piece)
        if decoded:
            yield decoded
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest


def _over_url(client, asked, follow, timeout):
    media = "stream" if follow else "file"
    try:
        with _open(client, f"/api/v0/logs/{media}?{_query(asked)}", None if follow else timeout) as reply:
            while True:
                piece = reply.read1(_PIECE)
                if not piece:
                    return
                yield piece
    except HTTPError as e:
        raise RayStateApiException(e.read().decode("utf-8", "replace").strip()) from None


def _over_connection(asked, follow, timeout):
    """Parts of the file, one question each: nobody keeps more than one."""
    every = asked.get("interval") or _POLL
    first = True
    while True:
        answer = _ask("file", _query(asked), timeout)
        if answer["status"] != 200:
            raise RayStateApiException(answer["body"].decode("utf-8", "replace").strip())
        if first:  # the same file from now on, whatever becomes of the actor or task
            first = False
            keep = {k: asked.get(k) for k in ("filter_ansi_code",)}
            if asked.get("task_id") and not asked.get("actor_id"):
                keep["task"], keep["attempt"] = asked["task_id"], asked["attempt_number"]
            asked = {"node_id": answer["node_id"], "filename": answer["filename"], **keep}
        more = str(asked.get("offset")) != answer["offset"]
        asked["offset"] = answer["offset"]
        if answer["body"]:
            yield answer["body"]
        elif not follow and not more:
            return
        elif follow:
            time.sleep(every)


def _query(asked: Dict[str, Any]) -> str:
    return urlencode([(k, int(v) if isinstance(v, bool) else v) for k, v in asked.items() if v is not None])


def _ask(want: str, query: str, timeout: float) -> Dict[str, Any]:
    from ray._core import tables

    return tables.ask({"kind": "logs", "want": want, "query": query, "seconds": float(timeout)})


def _open(client, path: str, timeout: Optional[float]):
    headers = dict(client._headers)
    if client._token:
        headers["Authorization"] = f"Bearer {client._token}"
    try:
        return urlopen(Request(client._url + path, headers=headers), timeout=timeout)
    except HTTPError:
        raise
    except (URLError, OSError) as e:
        raise ServerUnavailable(
            f"Failed to make request to {client._url}{path.split('?')[0]}: {e}. Check that the cluster runs and that the "
            "address is that of its dashboard."
        ) from e


def _refused(status: int, body: bytes) -> Exception:
    said = body.decode("utf-8", "replace").strip()
    try:
        said = json.loads(said)["msg"]
    except (ValueError, KeyError, TypeError):
        pass
    try:
        from requests import HTTPError as Error
    except ImportError:
        return RayStateApiException(said)

    class LogsRefused(Error, RayStateApiException):
        """A list of logs that the cluster does not give; Ray raises requests' class here."""

    e = LogsRefused(said)
    e.response = _Response(status, said)
    return e
