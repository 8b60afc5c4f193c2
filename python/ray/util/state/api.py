"""A client of a cluster's state API."""

import json
import os
import warnings
from dataclasses import asdict
from typing import Any, Dict, List, Optional, Union
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from ray.util.state.common import (
    DEFAULT_LIMIT,
    RAY_MAX_LIMIT_FROM_API_SERVER,
    BadFilter,
    GetApiOptions,
    ListApiOptions,
    StateResource,
    StateSchema,
    SummaryApiOptions,
    SummaryResource,
    TaskSummaries,
    resource_to_schema,
)
from ray.util.state.exception import RayStateApiException, ServerUnavailable

_IDS = {  # the column that names a thing, and the bytes of an id
    StateResource.ACTORS: ("actor_id", 16),
    StateResource.JOBS: ("job_id", None),
    StateResource.PLACEMENT_GROUPS: ("placement_group_id", None),
    StateResource.NODES: ("node_id", None),
    StateResource.WORKERS: ("worker_id", None),
    StateResource.TASKS: ("task_id", None),
    StateResource.OBJECTS: ("object_id", None),
}


class StateApiClient:
    """A client of a cluster's state API.

    In a process that is connected to the cluster it asks over that connection; elsewhere it asks the dashboard's port.
    """

    def __init__(
        self,
        address: Optional[str] = None,
        cookies: Optional[Dict[str, Any]] = None,
        headers: Optional[Dict[str, Any]] = None,
    ):
        """Make a client.

        Args:
            address: ``http://host:port`` of a dashboard, ``host:port`` of a head that a daemon of this machine belongs to,
                or "auto"; None is the cluster that this process is connected to, else $RAY_API_SERVER_ADDRESS,
                $RAY_ADDRESS, or the one that was started on this machine last.
            cookies: Sent with requests to a dashboard.
            headers: The same.

        Raises:
            ConnectionError: There is no cluster.
            ServerUnavailable: There is none at the address, or it has no dashboard.
        """
        self._url, self._token = _server(address)
        self._headers = dict(headers or {})
        if cookies:
            self._headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in cookies.items())

    def list(
        self,
        resource: StateResource,
        options: Optional[ListApiOptions] = None,
        raise_on_missing_output: bool = True,
        _explain: bool = False,
    ) -> List[StateSchema]:
        """All things of a kind that the options ask for.

        Raises:
            RayStateApiException: The question is wrong, or (``raise_on_missing_output``) a node did not answer.
        """
        options = options or ListApiOptions()
        if not 0 <= options.limit <= RAY_MAX_LIMIT_FROM_API_SERVER:
            raise RayStateApiException(
                f"Given limit {options.limit} exceeds the supported limit {RAY_MAX_LIMIT_FROM_API_SERVER}. Use a lower limit."
            )
        answer = self._ask(resource.value, "", options)
        self._warn(answer, options.limit, raise_on_missing_output)
        schema = resource_to_schema(resource)
        return [schema._of(row) for row in answer["rows"] or ()]

    def get(
        self,
        resource: StateResource,
        id: str,  # noqa: A002
        options: Optional[GetApiOptions] = None,
        _explain: bool = False,
    ) -> Union[StateSchema, List[StateSchema], None]:
        """All that is known of one thing, or None; of objects, and of tasks with several attempts, a list.

        Raises:
            RayStateApiException: ``id`` is no id.
        """
        options = options or GetApiOptions()
        if resource not in _IDS:
            raise RayStateApiException(f"Can't get {resource.name} by id.")
        column, size = _IDS[resource]
        if resource == StateResource.JOBS and not _is_hex(id):
            column = "submission_id"
        if size is not None:
            if not _is_hex(id):
                raise RayStateApiException(f"{id!r} is not the hexadecimal form of an actor's id.")
            if len(id) != 2 * size:
                raise RayStateApiException(f"ID string needs to have length {size}, got {len(id) // 2}")
        found = self.list(
            resource,
            ListApiOptions(
                limit=RAY_MAX_LIMIT_FROM_API_SERVER if resource == StateResource.OBJECTS else DEFAULT_LIMIT,
                timeout=options.timeout,
                filters=[(column, "=", id)],
                detail=True,
                server_timeout_multiplier=options.server_timeout_multiplier,
            ),
            raise_on_missing_output=False,
        )
        if resource == StateResource.OBJECTS:
            return found
        if not found:
            return None
        return found if len(found) > 1 else found[0]

    def summary(
        self,
        resource: SummaryResource,
        *,
        options: Optional[SummaryApiOptions] = None,
        raise_on_missing_output: bool = True,
        _explain: bool = False,
    ) -> Dict:
        """A kind of things in figures: ``{"cluster": {"summary": …}}``."""
        options = options or SummaryApiOptions()
        if resource == SummaryResource.TASKS and options.summary_by == "lineage":
            return {"cluster": self._lineage(options, raise_on_missing_output)}
        asked = ListApiOptions(timeout=options.timeout, filters=options.filters)
        answer = self._ask(resource.value, "summary", asked)
        self._warn(answer, None, raise_on_missing_output)
        rows = answer["rows"] or [{}]
        return {"cluster": rows[0]}

    def _lineage(self, options: SummaryApiOptions, raise_on_missing_output: bool) -> Dict[str, Any]:
        every = ListApiOptions(limit=RAY_MAX_LIMIT_FROM_API_SERVER, timeout=options.timeout, detail=True)
        rows = [
            [row.asdict() for row in self.list(kind, every, raise_on_missing_output)]
            for kind in (StateResource.TASKS, StateResource.ACTORS)
        ]
        return asdict(TaskSummaries.to_summary_by_lineage(tasks=rows[0], actors=rows[1]))

    def timeline(self, job_id: str = "") -> List[Dict]:
        """The events of tasks, as Chrome's trace viewer reads them."""
        return self._ask("tasks", "timeline", ListApiOptions(), job_id)["rows"] or []

    @staticmethod
    def _warn(answer, limit, strict):
        missing = answer["missing"]
        if missing and strict:
            raise RayStateApiException(
                f"Failed to retrieve all the state from the cluster because some of it cannot be reached. {missing} "
                "To ignore this, pass raise_on_missing_output=False."
            )
        if missing:
            warnings.warn(missing, stacklevel=4)
        for note in answer["notes"] or ():
            warnings.warn(note, stacklevel=4)
        if limit is not None and answer["filtered"] > limit:
            warnings.warn(
                f"Limit last {limit} entries (Total {answer['filtered']}). Use `--filter` to reduce the amount of data to "
                "return or setting a higher limit with `--limit` to see all data.",
                stacklevel=4,
            )

    def _ask(self, kind: str, want: str, options: ListApiOptions, job: str = "") -> Dict[str, Any]:
        filters = [{"key": str(k), "predicate": p, "value": str(v)} for k, p, v in options.filters or ()]
        if self._url is None:
            from ray._core import tables

            answer = tables.ask(
                {
                    "kind": kind,
                    "want": want,
                    "limit": options.limit,
                    "detail": bool(options.detail),
                    "drivers": not options.exclude_driver,
                    "filters": filters,
                    "job": job,
                    "seconds": float(max(options.timeout * options.server_timeout_multiplier, 0.1)),
                }
            )
            if "bad" in answer:
                raise BadFilter(answer["bad"])
            return answer
        query = [("limit", options.limit), ("detail", int(options.detail)), ("timeout", options.timeout)]
        for f in filters:
            query += [("filter_keys", f["key"]), ("filter_predicates", f["predicate"]), ("filter_values", f["value"])]
        path = {"": kind, "summary": f"{kind}/summarize", "timeline": f"{kind}/timeline"}[want]
        if job:
            query.append(("job_id", job))
        body = self._fetch(f"/api/v0/{path}?{urlencode(query)}", options.timeout)
        if want == "timeline":
            return {"rows": body}
        if not body.get("result"):
            raise BadFilter(body.get("msg") or "the cluster gives no reason")
        result = body["data"]["result"]
        rows = result["result"]
        if want == "summary":
            rows = [rows["node_id_to_summary"]["cluster"]]
        return {
            "rows": rows,
            "filtered": result["num_filtered"],
            "missing": result["partial_failure_warning"],
            "notes": result["warnings"],
        }

    def _fetch(self, path: str, timeout: float) -> Any:
        headers = dict(self._headers)
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            with urlopen(Request(self._url + path, headers=headers), timeout=timeout) as answer:
                return json.load(answer)
        except HTTPError as e:
            body = e.read()
            try:
                return json.loads(body)
            except ValueError:
                text = body.decode("utf-8", "replace").strip()
                raise RayStateApiException(
                    f"The server at {self._url} answers with HTTP status {e.code}: {text}"
                ) from None
        except (URLError, OSError) as e:
            raise ServerUnavailable(
                f"Failed to make request to {self._url}{path.split('?')[0]}: {e}. Check that the cluster runs and that the "
                "address is that of its dashboard."
            ) from e


def _is_hex(text: str) -> bool:
    try:
        bytes.fromhex(text)
    except (TypeError, ValueError):
        return False
    return True


def _server(address: Optional[str]):
    """The URL and token of the server at an address; (None, None) for the cluster that this process is connected to."""
    from ray import _address
    from ray._core import state

    if address is None and state.client is not None:
        return None, None
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or "auto"
    if state.client is not None and address in ("auto", state.gcs_address, f"http://{state.dashboard_url}"):
        return None, None
    root = _address.root_dir()
    if "://" in address:
        if not address.startswith(("http://", "https://")):
            raise ServerUnavailable(f"The state API is asked for at http://host:port; {address} has another form.")
        host = address.split("://", 1)[1].rstrip("/")
        node = next((n for n in _address.all_nodes(root) if n.get("dashboard_url") == host), {})
        return address.rstrip("/"), _token(node)
    if address == "auto":
        address = _address.current_cluster(root)
        if address is None:
            raise ConnectionError(_address.NO_CLUSTER)
    try:
        node = _address.find_node(root, address)
    except (ValueError, ConnectionError) as e:
        raise ServerUnavailable(str(e)) from None
    url = node.get("dashboard_url")
    if not url:
        heads = [n for n in _address.nodes_of(root, address) if n.get("dashboard_url")]
        if not heads:
            raise ServerUnavailable(
                f"The cluster at {address} has no dashboard port that this machine knows of. Pass the address of its "
                "dashboard (http://host:8265), or call ray.init() first: then the cluster itself is asked."
            )
        url = heads[0]["dashboard_url"]
    return f"http://{url}", _token(node)


def _token(node) -> Optional[str]:
    from ray import _address
    from ray.exceptions import AuthenticationError

    try:
        return _address.token(node)
    except AuthenticationError:  # a server that wants one will say so
        return None
