"""The exceptions of the package. All that it raises itself, but TypeError and KeyError, have `kind`, the one word by which Edgeward tells
its errors apart.
"""

from __future__ import annotations

from typing import TypeVar

_E = TypeVar("_E", bound=Exception)


def of_kind(kind: str, exception: _E) -> _E:
    """The exception, with its `kind`."""
    setattr(exception, "kind", kind)
    return exception


class EdgeExecutionError(Exception):
    """An invocation failed. `__cause__` is what the handler raised, where it was one of Python."""

    kind: str = "execution_failed"
    """`execution_failed`, `timeout`, `memory_limit` or `overloaded`."""
    status: int | None = None
    """Status of the HTTP answer of a component, where there was one."""
    exit_code: int | None = None
    """Exit code of a command, where it ended by itself."""
    stderr_tail: str = ""
    """The last that a component wrote to standard error."""


class EdgeTimeoutError(EdgeExecutionError, TimeoutError):
    """An invocation ran past its `timeout_seconds`."""

    kind = "timeout"
