"""What happens in an event loop when the work is done that one of its futures waits for."""

from __future__ import annotations

import asyncio
from typing import Any


def settle(future: asyncio.Future[Any], value: object, error: BaseException | None) -> None:
    """Gives a future its result, unless it was cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
