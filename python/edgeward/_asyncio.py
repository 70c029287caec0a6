"""How an event loop waits for threads: for work of the compiled part, and for streams of the API."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from edgeward._api import Events


def settle(future: asyncio.Future[Any], value: object, error: BaseException | None) -> None:
    """Gives a future its result, unless it was cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


async def stream(start: Callable[[], Events]) -> AsyncIterator[dict[str, Any]]:
    """What a stream tells, waited for on threads of its own: a stream may be silent for long, and those of the loop are few."""
    events = await _on_a_thread(start)
    try:
        while (told := await _on_a_thread(lambda: next(events, None))) is not None:
            yield told
    finally:
        # Ends the wait of a thread that still reads, too.
        events.close()


async def _on_a_thread(work: Callable[[], Any]) -> Any:
    event_loop = asyncio.get_running_loop()
    future = event_loop.create_future()

    def do() -> None:
        value, raised = None, None
        try:
            value = work()
        except BaseException as error:
            raised = error
        # A loop that was closed meanwhile refuses this, and nobody waits there.
        with contextlib.suppress(RuntimeError):
            event_loop.call_soon_threadsafe(settle, future, value, raised)

    threading.Thread(target=do, name="edgeward-stream", daemon=True).start()
    return await future
