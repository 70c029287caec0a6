"""Calls of the HTTP API.

Each has a connection of its own and a bound for every wait, and an error is the exception that the library raises without the API.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from edgeward._edgeward import SyncState
from edgeward._errors import EdgeExecutionError, EdgeTimeoutError, of_kind

JSON = "application/json"

_T = TypeVar("_T")


class Events:
    """What a stream of the API tells, for `for`. It may be closed from any thread."""

    def __init__(self, connection: http.client.HTTPConnection, lines: Iterator[dict[str, Any]]) -> None:
        self._socket = connection.sock
        self._lines = lines

    def __iter__(self) -> Events:
        return self

    def __next__(self) -> dict[str, Any]:
        return next(self._lines)

    def close(self) -> None:
        """Ends the stream, and a wait for what it tells next."""
        # It may have ended by itself.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class Api:
    """The API at one address. Thread-safe."""

    def __init__(self, url: str, token: str | None, ca_file: str | os.PathLike[str] | None, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
            raise of_kind("invalid_input", ValueError(f"the address `{url}` is not valid: it must be like `http://127.0.0.1:7700`"))
        if token is not None and parts.scheme != "https":
            why = "a token is shown over TLS only: use an address that begins with `https://`"
            raise of_kind("invalid_input", ValueError(why))
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._host, self._port = parts.hostname, parts.port
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._token = token
        self._timeout_seconds = timeout_seconds

    def send(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
        if_state: SyncState | None = None,
        if_generation: int | None = None,
        terms: dict[str, str] | None = None,
    ) -> bytes:
        """Makes a call, with more header fields by `terms`; returns the body of the answer."""
        more = {**_condition(if_state, if_generation), **(terms or {})}
        connection, response = self._request(method, path, query, body, content_type, more)
        try:
            return self._answer(method, path, response.read)
        finally:
            connection.close()

    def object(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
        if_state: SyncState | None = None,
        if_generation: int | None = None,
    ) -> dict[str, Any]:
        """The same, where the answer is an object of JSON."""
        text = self.send(method, path, query, body, content_type, if_state, if_generation)
        with contextlib.suppress(ValueError):
            answer = json.loads(text)
            if isinstance(answer, dict):
                return answer
        why = f"failed to read what `{self.url}` answered to {method} {path}: it is no object of JSON; is it a node or a hub?"
        raise of_kind("internal", RuntimeError(why))

    def objects(self, name: str, path: str, query: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """A list of objects, by its name in the answer."""
        listed: list[dict[str, Any]] = self.object("GET", path, query)[name]
        return listed

    def events(self, path: str, query: dict[str, Any], only: str | None = None) -> Events:
        """A stream of server-sent events: the objects in them, of all or of those with one name."""
        connection, response = self._request("GET", path, query, None, None, None)
        return Events(connection, self._told(connection, response, path, only))

    def _told(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, path: str, only: str | None
    ) -> Iterator[dict[str, Any]]:
        # The server sends a comment every 15 seconds, so that the bound holds for a stream too.
        try:
            name, data = "message", []
            while raw := self._answer("GET", path, response.readline):
                line = raw.decode().rstrip("\r\n")
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if field == "event":
                    name = value
                elif field == "data":
                    data.append(value)
                elif not line and data:
                    if only in (None, name):
                        yield json.loads("\n".join(data))
                    name, data = "message", []
        finally:
            connection.close()

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None,
        body: bytes | None,
        content_type: str | None,
        more: dict[str, str] | None,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        wanted = {name: "true" if value is True else value for name, value in (query or {}).items() if value is not None}
        target = path + ("?" + urlencode(wanted) if wanted else "")
        headers = {"User-Agent": "edgeward-python", **(more or {})}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if content_type is not None:
            headers["Content-Type"] = content_type
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_seconds)
        else:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_seconds, context=self._tls)

        def ask() -> http.client.HTTPResponse:
            connection.request(method, target, body=body, headers=headers)
            return connection.getresponse()

        try:
            response = self._answer(method, path, ask)
            if response.status >= 400:
                raise _problem(response.status, self._answer(method, path, response.read))
            return connection, response
        except BaseException:
            connection.close()
            raise

    def _answer(self, method: str, path: str, wait: Callable[[], _T]) -> _T:
        """Waits for an answer; that there is none is told with what was asked."""
        try:
            return wait()
        except TimeoutError as error:
            why = f"`{self.url}` did not answer {method} {path} within {self._timeout_seconds:g} seconds"
            raise of_kind("unavailable", TimeoutError(why)) from error
        except (OSError, http.client.HTTPException) as error:
            raise of_kind("unavailable", ConnectionError(f"failed to ask `{self.url}`: {error}")) from error


def _condition(if_state: SyncState | None, if_generation: int | None) -> dict[str, str]:
    """The header that says in which state something must be to be changed."""
    if if_state is not None:
        return {"If-Match": f'"{if_state.version}-{if_state.checksum}"'}
    if if_generation is not None:
        return {"If-Match": f'"{if_generation}"'} if if_generation else {"If-None-Match": "*"}
    return {}


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
        kind = "invalid_input" if status < 500 else "internal"
        message = f"the server answered {status}: {body[:512].decode(errors='replace')}"
        problem = {}
    causes = problem.get("causes") or []
    exception = _CLASSES.get(kind, ValueError)(": ".join([message, *causes]))
    of_kind(kind, exception)
    if isinstance(exception, EdgeExecutionError):
        failure = problem.get("failure") or {}
        exception.status = failure.get("status")
        exception.exit_code = failure.get("exit_code")
        exception.stderr_tail = failure.get("stderr_tail", "")
    return exception
