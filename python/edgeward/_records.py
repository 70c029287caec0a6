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
        for name in ("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__repr__", "__eq__"):
            setattr(cls, name, getattr(model, name))
        cls.__hash__ = None
        if not hasattr(cls, "__getnewargs__"):
            cls.__getstate__ = _state
            cls.__setstate__ = _set_state


def _state(self: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(self, name) for name in type(self).__dataclass_fields__}
    return {**fields, **vars(self)}


def _set_state(self: Any, state: dict[str, Any]) -> None:
    for name, value in state.items():
        setattr(self, name, value)
