"""The exceptions of the package. Every exception that it raises has `kind`, the one word by which Edgeward tells its errors apart."""

from __future__ import annotations


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
