"""A client of the HTTP API of a running node (`edgeward up`) or hub (`edgeward hub`).

Answers are what the API's JSON says, with states of documents as `SyncState`. Each call has a connection of its own, and every wait has a
bound. A token is shown over TLS only.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import ssl
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Union
from urllib.parse import quote, urlencode, urlsplit

from edgeward._edgeward import EdgeFunction, SyncState
from edgeward._errors import EdgeExecutionError, EdgeTimeoutError

Payload = Union[bytes, bytearray, str]

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"


class Client:
    """Talks to one node or hub. Thread-safe. `node` says which node of a hub a call is about, and is left out on a node itself."""

    def __init__(self, url: str, token: str | None = None, *, ca_file: str | os.PathLike[str] | None = None, timeout_seconds: float = 60) -> None:
        """`url` is `http://HOST:PORT` or `https://HOST:PORT`; `ca_file` holds the certificates that are trusted in place of the system's."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
            raise ValueError(f"the address `{url}` is not valid: it must be like `http://127.0.0.1:7700`")
        if token is not None and parts.scheme != "https":
            raise ValueError("a token is shown over TLS only: use an address that begins with `https://`")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._host, self._port = parts.hostname, parts.port
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._token = token
        self._timeout_seconds = timeout_seconds

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def status(self) -> dict[str, Any]:
        """The node or hub and its process."""
        return self._object("GET", "/v1/status")

    def summary(self, function_id: str | None = None, node: str | None = None) -> dict[str, Any]:
        """What ran so far: totals, success rate in percent, durations in milliseconds, errors by kind."""
        return self._object("GET", "/v1/metrics/summary", {"function": function_id, "node": node})

    def nodes(self, status: object = None) -> list[dict[str, Any]]:
        """The nodes of a hub, or those of one `EdgeNodeStatus`."""
        return self._list("GET", "/v1/nodes", "nodes", {"status": getattr(status, "value", status)})

    def node(self, node_id: str) -> dict[str, Any]:
        """One node of a hub."""
        return self._object("GET", f"/v1/nodes/{_part(node_id)}")

    def label_node(self, node_id: str, labels: dict[str, str | None]) -> dict[str, Any]:
        """Sets labels of a node of a hub; None removes one."""
        return self._object("PATCH", f"/v1/nodes/{_part(node_id)}", body=_dumps({"labels": labels}), content_type=_JSON)

    def remove_node(self, node_id: str) -> None:
        """Removes a node from the fleet of a hub."""
        self._send("DELETE", f"/v1/nodes/{_part(node_id)}")

    def functions(self, node: str | None = None) -> list[dict[str, Any]]:
        """The functions, with what became of each."""
        return self._list("GET", "/v1/functions", "functions", {"node": node})

    def deploy(
        self,
        function: EdgeFunction,
        *,
        node: str | None = None,
        all_nodes: bool = False,
        signature: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Uploads the artifact of a function and deploys it: on the node itself, or from a hub on one node or on all.

        `signature` is what `edgeward sign` wrote, read from JSON; nodes that run signed artifacts only demand one.
        """
        if function.artifact is None:
            raise TypeError(f"function `{function.id}` has a handler of this process; only an artifact can be deployed elsewhere")
        artifact = function.artifact if isinstance(function.artifact, bytes) else Path(function.artifact).read_bytes()
        digest = self._object("POST", "/v1/artifacts", body=artifact, content_type="application/wasm")["digest"]
        grants = [
            {"document": grant.removesuffix(":ro"), "access": "read-only" if grant.endswith(":ro") else "read-write"}
            for grant in function.documents
        ]
        description = {
            "name": function.name,
            "handler": {"artifact": digest},
            "memory_mb": function.memory_mb,
            "timeout_seconds": function.timeout_seconds,
            "environment": function.environment,
            "allowed_hosts": function.allowed_hosts,
            "documents": grants,
            "max_concurrency": function.max_concurrency,
            "max_queue": function.max_queue,
            "max_reuse": function.max_reuse,
        }
        if signature is not None:
            description["signature"] = {name: signature[name] for name in ("key", "counter", "signature")}
        query = {"node": node, "all": all_nodes or None}
        return self._object("PUT", f"/v1/functions/{_part(function.id)}", query, body=_dumps(description), content_type=_JSON)

    def undeploy(self, function_id: str, *, node: str | None = None, all_nodes: bool = False) -> bool:
        """Takes a function from the node itself, or from one node or all of a hub; says whether it was there."""
        try:
            self._send("DELETE", f"/v1/functions/{_part(function_id)}", {"node": node, "all": all_nodes or None})
        except ValueError as error:
            if getattr(error, "kind", None) == "not_found" and str(error).lower().startswith("function not found"):
                return False
            raise
        return True

    def invoke(self, function_id: str, payload: Payload = b"", *, content_type: str | None = None, node: str | None = None) -> bytes:
        """Invokes a function with a payload and returns its answer."""
        body = payload.encode() if isinstance(payload, str) else bytes(payload)
        kind = content_type or "application/octet-stream"
        return self._send("POST", f"/v1/functions/{_part(function_id)}/invoke", {"node": node}, body, kind)

    def logs(self, function_id: str, *, node: str | None = None, follow: bool = False) -> Iterator[dict[str, Any]]:
        """The lines that a function printed: those that are kept, and with `follow` those that come."""
        for _, line in self._events(f"/v1/functions/{_part(function_id)}/logs", {"node": node, "follow": follow or None}):
            yield line

    def events(
        self, *, node: str | None = None, after: str | None = None, limit: int | None = None, follow: bool = False
    ) -> Iterator[dict[str, Any]]:
        """The events of a fleet: the last ones, and with `follow` those that come."""
        query = {"node": node, "after": after, "limit": limit, "follow": follow or None}
        for name, event in self._events("/v1/events", query):
            if name == "message":
                yield event

    def documents(self) -> list[dict[str, Any]]:
        """The documents, without their data."""
        return self._list("GET", "/v1/documents", "documents")

    def document(self, name: str) -> SyncState | None:
        """A document, whole, or None when there is none."""
        try:
            return _state(self._object("GET", _document(name)))
        except ValueError as error:
            if getattr(error, "kind", None) == "not_found":
                return None
            raise

    def put_document(self, name: str, data: dict[str, Any], *, if_state: SyncState | None = None) -> SyncState:
        """Makes `data` the whole document; with `if_state`, only when the document is in that state."""
        return _state(self._object("PUT", _document(name), body=_dumps(data), content_type=_JSON, if_state=if_state))

    def patch_document(self, name: str, patch: dict[str, Any], *, if_state: SyncState | None = None) -> SyncState:
        """Changes a document by a JSON merge patch (RFC 7396): None deletes a key."""
        return _state(self._object("PATCH", _document(name), body=_dumps(patch), content_type=_MERGE_PATCH, if_state=if_state))

    def delete_document(self, name: str, *, if_state: SyncState | None = None) -> None:
        """Deletes every key of a document."""
        self._send("DELETE", _document(name), if_state=if_state)

    def pending_changes(self, name: str) -> list[dict[str, Any]]:
        """The changes of a document that are not confirmed, oldest first."""
        return _changes(self._list("GET", _document(name) + "/pending", "pending"))

    def history(self, name: str) -> list[dict[str, Any]]:
        """The changes of a document that are kept, oldest first."""
        return _changes(self._list("GET", _document(name) + "/history", "history"))

    def confirm(self, name: str, up_to_version: int) -> None:
        """Confirms the pending changes of a document up to a version."""
        self._send("POST", _document(name) + "/confirm", body=_dumps({"up_to_version": up_to_version}), content_type=_JSON)

    def conflicts(self, name: str, *, limit: int | None = None, after: str | None = None) -> dict[str, Any]:
        """The conflicts of a document that nobody has resolved, in pages: `conflicts`, and `next` for the page after."""
        return self._object("GET", _document(name) + "/conflicts", {"limit": limit, "after": after})

    def resolve(self, name: str, conflict_id: str, resolution: dict[str, Any]) -> None:
        """Resolves a conflict as the API's `resolve` says."""
        path = f"{_document(name)}/conflicts/{_part(conflict_id)}/resolve"
        self._send("POST", path, body=_dumps(resolution), content_type=_JSON)

    def watch_document(self, name: str) -> Iterator[dict[str, Any]]:
        """The states of a document as they come, the one of now first; of a very large one only its version."""
        for _, state in self._events(_document(name) + "/watch", {}):
            yield state

    def _object(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
        if_state: SyncState | None = None,
    ) -> dict[str, Any]:
        answer = json.loads(self._send(method, path, query, body, content_type, if_state))
        assert isinstance(answer, dict), "the API answers with objects"
        return answer

    def _list(self, method: str, path: str, name: str, query: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        items = self._object(method, path, query)[name]
        assert isinstance(items, list), "the API lists objects"
        return items

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
        if_state: SyncState | None = None,
    ) -> bytes:
        connection, response = self._request(method, path, query, body, content_type, if_state, self._timeout_seconds)
        try:
            return response.read()
        finally:
            connection.close()

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None,
        body: bytes | None,
        content_type: str | None,
        if_state: SyncState | None,
        timeout: float | None,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        wanted = {name: "true" if value is True else value for name, value in (query or {}).items() if value is not None}
        target = path + ("?" + urlencode(wanted) if wanted else "")
        headers = {"User-Agent": "edgeward-python"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if content_type is not None:
            headers["Content-Type"] = content_type
        if if_state is not None:
            headers["If-Match"] = f'"{if_state.version}-{if_state.checksum}"'
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        else:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls)
        try:
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise _problem(response.status, response.read())
        except BaseException:
            connection.close()
            raise
        return connection, response

    def _events(self, path: str, query: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        # The server sends a comment every 15 seconds, so that the bound holds for a stream too.
        connection, response = self._request("GET", path, query, None, None, None, self._timeout_seconds)
        try:
            name, data = "message", []
            for raw in response:
                line = raw.decode().rstrip("\r\n")
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if field == "event":
                    name = value
                elif field == "data":
                    data.append(value)
                elif not line and data:
                    yield name, json.loads("\n".join(data))
                    name, data = "message", []
        finally:
            connection.close()


class AsyncClient:
    """The same client for `asyncio`: each call waits on a thread of its own."""

    def __init__(self, url: str, token: str | None = None, *, ca_file: str | os.PathLike[str] | None = None, timeout_seconds: float = 60) -> None:
        self._client = Client(url, token, ca_file=ca_file, timeout_seconds=timeout_seconds)

    def __repr__(self) -> str:
        return f"AsyncClient({self._client.url!r})"

    async def status(self) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.status)

    async def summary(self, function_id: str | None = None, node: str | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.summary, function_id, node)

    async def nodes(self, status: object = None) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.nodes, status)

    async def node(self, node_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.node, node_id)

    async def label_node(self, node_id: str, labels: dict[str, str | None]) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.label_node, node_id, labels)

    async def remove_node(self, node_id: str) -> None:
        await asyncio.to_thread(self._client.remove_node, node_id)

    async def functions(self, node: str | None = None) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.functions, node)

    async def deploy(self, function: EdgeFunction, *, node: str | None = None, all_nodes: bool = False) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.deploy, function, node=node, all_nodes=all_nodes)

    async def undeploy(self, function_id: str, *, node: str | None = None, all_nodes: bool = False) -> bool:
        return await asyncio.to_thread(self._client.undeploy, function_id, node=node, all_nodes=all_nodes)

    async def invoke(self, function_id: str, payload: Payload = b"", *, content_type: str | None = None, node: str | None = None) -> bytes:
        return await asyncio.to_thread(self._client.invoke, function_id, payload, content_type=content_type, node=node)

    async def documents(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.documents)

    async def document(self, name: str) -> SyncState | None:
        return await asyncio.to_thread(self._client.document, name)

    async def put_document(self, name: str, data: dict[str, Any], *, if_state: SyncState | None = None) -> SyncState:
        return await asyncio.to_thread(self._client.put_document, name, data, if_state=if_state)

    async def patch_document(self, name: str, patch: dict[str, Any], *, if_state: SyncState | None = None) -> SyncState:
        return await asyncio.to_thread(self._client.patch_document, name, patch, if_state=if_state)

    async def delete_document(self, name: str, *, if_state: SyncState | None = None) -> None:
        await asyncio.to_thread(self._client.delete_document, name, if_state=if_state)

    async def pending_changes(self, name: str) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.pending_changes, name)

    async def history(self, name: str) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.history, name)

    async def confirm(self, name: str, up_to_version: int) -> None:
        await asyncio.to_thread(self._client.confirm, name, up_to_version)

    async def conflicts(self, name: str, *, limit: int | None = None, after: str | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.conflicts, name, limit=limit, after=after)

    async def resolve(self, name: str, conflict_id: str, resolution: dict[str, Any]) -> None:
        await asyncio.to_thread(self._client.resolve, name, conflict_id, resolution)


def _part(text: str) -> str:
    return quote(text, safe="")


def _document(name: str) -> str:
    return f"/v1/documents/{_part(name)}"


def _dumps(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def _local(text: str) -> datetime:
    # Python 3.10 reads neither `Z` nor nanoseconds.
    moment, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{moment}.{fraction[:6].ljust(6, '0')}+00:00").astimezone().replace(tzinfo=None)


def _state(answer: dict[str, Any]) -> SyncState:
    return SyncState(answer["version"], answer["data"], answer["checksum"], _local(answer["updated_at"]))


def _changes(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [change | {"timestamp": _local(change["timestamp"])} for change in changes]


_CLASSES: dict[str, type[Exception]] = {
    "timeout": EdgeTimeoutError,
    "execution_failed": EdgeExecutionError,
    "memory_limit": EdgeExecutionError,
    "overloaded": EdgeExecutionError,
    "unavailable": ConnectionError,
    "internal": RuntimeError,
    "forbidden": PermissionError,
    "unauthenticated": PermissionError,
}


def _problem(status: int, body: bytes) -> Exception:
    """The exception of an answer that is an error: of the same class and `kind` as where the library is used without the API."""
    try:
        problem = json.loads(body)
        kind, message = problem["kind"], problem["detail"]
    except (ValueError, KeyError, TypeError):
        kind, message = "invalid_input" if status < 500 else "internal", f"the server answered {status}: {body[:512].decode(errors='replace')}"
        problem = {}
    causes = problem.get("causes") or []
    exception = _CLASSES.get(kind, ValueError)(": ".join([message, *causes]))
    setattr(exception, "kind", kind)
    if isinstance(exception, EdgeExecutionError):
        failure = problem.get("failure") or {}
        exception.status = failure.get("status")
        exception.exit_code = failure.get("exit_code")
        exception.stderr_tail = failure.get("stderr_tail", "")
    return exception
