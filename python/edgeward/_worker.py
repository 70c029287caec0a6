"""The loop of a thread that runs handlers. It is Python, so that an interpreter that ends can unwind a thread from within a handler."""

from __future__ import annotations

import asyncio
import threading
from types import CoroutineType
from typing import Any, Protocol

# A coroutine is cancelled this long after its caller was told that it is late: the caller's clock decides.
_GRACE_SECONDS = 0.05


class _Worker(Protocol):
    def next(self) -> tuple[Any, tuple[Any, ...], dict[str, Any] | None]: ...
    def done(self, result: object) -> None: ...
    def failed(self, error: BaseException) -> None: ...
    def seconds_left(self) -> float: ...


def start(worker: _Worker, number: int) -> None:
    """Starts the thread of a worker. A daemon, as a handler that never returns must not keep a program from ending."""
    threading.Thread(target=_serve, args=(worker,), name=f"edgeward-handler-{number}", daemon=True).start()


def _serve(worker: _Worker) -> None:
    while True:
        handler, args, kwargs = worker.next()
        try:
            result = handler(*args, **kwargs) if kwargs else handler(*args)
            if type(result) is CoroutineType:
                result = asyncio.run(_within(result, worker.seconds_left() + _GRACE_SECONDS))
        except BaseException as error:
            worker.failed(error)
        else:
            worker.done(result)
        # Nothing of one call lives on while the thread waits for the next.
        handler = args = kwargs = result = None  # type: ignore[assignment]


async def _within(coroutine: Any, seconds: float) -> Any:
    return await asyncio.wait_for(coroutine, seconds)
