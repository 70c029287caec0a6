"""The behaviour of dataclasses for the compiled classes that hold fields.

Each has a dataclass of the same fields as its model, which is never made: its equality, `repr` and the tables that `dataclasses.fields`,
`asdict` and `replace` read are those of the compiled class.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from edgeward import _edgeward
from edgeward._status import EdgeNodeStatus


@dataclass
class EdgeNode:
    id: str
    name: str
    location: str = ""
    status: EdgeNodeStatus = EdgeNodeStatus.ONLINE
    capabilities: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    last_heartbeat: datetime = field(default_factory=datetime.now)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass
class EdgeFunction:
    id: str
    name: str
    handler: Callable[..., Any] | None = None
    memory_mb: int = 128
    timeout_seconds: float = 30
    # Its values may be secrets.
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    # It may be megabytes.
    artifact: bytes | str | os.PathLike[str] | None = field(default=None, repr=False, kw_only=True)
    allowed_hosts: list[str] = field(default_factory=list, kw_only=True)
    documents: list[str] = field(default_factory=list, kw_only=True)
    max_concurrency: int = field(default=128, kw_only=True)
    max_queue: int = field(default=256, kw_only=True)
    max_reuse: int = field(default=1, kw_only=True)
    resilience: dict[str, Any] = field(default_factory=dict, kw_only=True)


@dataclass
class SyncState:
    version: int
    data: dict[str, Any]
    checksum: str
    updated_at: datetime = field(default_factory=datetime.now)


@dataclass
class InvocationRecord:
    function_id: str
    node_id: str
    duration_ms: float
    success: bool
    timestamp: datetime = field(default_factory=datetime.now)
    error: str = ""


_MODELS: dict[str, Any] = {model.__name__: model for model in (EdgeNode, EdgeFunction, SyncState, InvocationRecord)}


def complete(*classes: Any) -> None:
    """Gives each class what a dataclass has."""
    for cls in classes:
        model = _MODELS[cls.__name__]
        for name in ("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__repr__", "__eq__", "__replace__"):
            # `__replace__` is of Python 3.13 and later.
            if hasattr(model, name):
                setattr(cls, name, getattr(model, name))
        cls.__hash__ = None
        if cls is _edgeward.InvocationRecord:
            setattr(cls, "__init_subclass__", classmethod(_complete_subclass))
        else:
            cls.__getstate__ = _state
            cls.__setstate__ = _set_state


class _Fields:
    """The `__init__` below a subclass of `InvocationRecord`, which has none itself: its `__new__` takes the fields, as that is faster."""

    __slots__ = ()

    def __init__(
        self: Any, function_id: str, node_id: str, duration_ms: float, success: bool, timestamp: datetime | None = None, error: str = ""
    ) -> None:
        self.function_id, self.node_id, self.duration_ms, self.success, self.error = function_id, node_id, duration_ms, success, error
        if timestamp is not None:
            self.timestamp = timestamp


def _complete_subclass(subclass: type[Any], /, **arguments: Any) -> None:
    """Makes a subclass of `InvocationRecord` as any class is made: blank at first, and whole by its `__init__`."""
    super(_edgeward.InvocationRecord, subclass).__init_subclass__(**arguments)
    cls: Any = subclass
    if not issubclass(cls, _Fields):
        cls.__bases__ = (*cls.__bases__, _Fields)
        cls.__new__ = _blank
        cls.__getstate__ = _state
        cls.__setstate__ = _set_state


def _blank(cls: Any, *_arguments: Any, **_named: Any) -> Any:
    return _edgeward.InvocationRecord.__new__(cls, None, None, None, None)  # type: ignore[call-arg]


def _state(self: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(self, name) for name in type(self).__dataclass_fields__}
    return {**fields, **vars(self)}


def _set_state(self: Any, state: dict[str, Any]) -> None:
    for name, value in state.items():
        setattr(self, name, value)
