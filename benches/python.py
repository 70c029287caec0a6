"""What `cargo xtask bench python` measures: the package beside plain Python that does the same, by turns, in one process.

    python benches/python.py PART

prints lines of a name and nanoseconds.
"""

import concurrent.futures
import hashlib
import json
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Callable

from edgeward import EdgeFunction, EdgeMetrics, EdgeNode, EdgeRuntime, InvocationRecord, SyncState


def nanoseconds(work: Callable[[int], object], count: int) -> float:
    begun = time.perf_counter_ns()
    work(count)
    return (time.perf_counter_ns() - begun) / count


def by_turns(ours: Callable[[int], object], peer: Callable[[int], object], count: int, names: tuple[str, str], turns: int = 5) -> None:
    """The least of some turns: what else the machine does only adds."""
    ours(count // 10 + 1), peer(count // 10 + 1)
    best = [float("inf"), float("inf")]
    for _ in range(turns):
        for side, work in enumerate((ours, peer)):
            best[side] = min(best[side], nanoseconds(work, count))
    for name, value in zip(names, best):
        print(name, value)


def handler(item: object) -> object:
    return item


def invoke() -> None:
    runtime = EdgeRuntime(EdgeNode("edge-01", "bench"))
    runtime.deploy(EdgeFunction("fn-1", "bench", handler))
    pool = concurrent.futures.ThreadPoolExecutor()

    def ours(count: int) -> None:
        for _ in range(count):
            runtime.invoke("fn-1", 1)

    def peer(count: int) -> None:
        for _ in range(count):
            pool.submit(handler, 1).result(30)

    by_turns(ours, peer, 5000, ("python_invoke", "concurrent_futures"))


@dataclass
class PlainRecord:
    function_id: str
    node_id: str
    duration_ms: float
    success: bool
    timestamp: datetime = field(default_factory=datetime.now)
    error: str = ""


class PlainMetrics:
    def __init__(self) -> None:
        self.records: list[PlainRecord] = []

    def record(self, record: PlainRecord) -> None:
        self.records.append(record)

    def total_invocations(self) -> int:
        return len(self.records)

    def success_rate(self) -> float:
        return sum(record.success for record in self.records) / len(self.records) * 100 if self.records else 100.0

    def avg_latency_ms(self) -> float:
        return sum(record.duration_ms for record in self.records) / len(self.records) if self.records else 0.0

    def error_count(self) -> int:
        return sum(not record.success for record in self.records)

    def summary(self) -> dict[str, Any]:
        return {
            "total_invocations": self.total_invocations(),
            "success_rate": self.success_rate(),
            "avg_latency_ms": self.avg_latency_ms(),
            "error_count": self.error_count(),
        }


def fill(metrics: Any, record: Any) -> Callable[[int], None]:
    def work(count: int) -> None:
        for _ in range(count):
            metrics.record(record(function_id="fn-1", node_id="edge-01", duration_ms=42.5, success=True))

    return work


def record() -> None:
    ours = lambda count: fill(EdgeMetrics(), InvocationRecord)(count)
    peer = lambda count: fill(PlainMetrics(), PlainRecord)(count)
    by_turns(ours, peer, 100_000, ("python_record", "dataclass_and_list"))


def summary() -> None:
    ours, peer = EdgeMetrics(), PlainMetrics()
    fill(ours, InvocationRecord)(1_000_000)
    fill(peer, PlainRecord)(1_000_000)

    def repeat(metrics: Any, times: int) -> Callable[[int], None]:
        def work(count: int) -> None:
            for _ in range(times):
                metrics.summary()

        return work

    repeat(ours, 100)(0)
    best = [float("inf"), float("inf")]
    for _ in range(3):
        best[0] = min(best[0], nanoseconds(repeat(ours, 1000), 1000))
        best[1] = min(best[1], nanoseconds(repeat(peer, 1), 1))
    print("python_summary", best[0])
    print("scan", best[1])


def document() -> dict[str, Any]:
    """About 100 KB: readings of sensors, with numbers, text, flags and lists."""
    return {
        f"sensor-{number:04}": {
            "name": f"Temperature in hall {number % 7}",
            "unit": "°C",
            "readings": [20 + (number * step % 97) / 8 for step in range(12)],
            "count": number * 1013,
            "online": number % 3 != 0,
            "last_error": None,
        }
        for number in range(400)
    }


def from_data() -> None:
    data = document()
    print(f"the document has {len(json.dumps(data, sort_keys=True))} bytes", file=sys.stderr)

    def ours(count: int) -> None:
        for _ in range(count):
            SyncState.from_data(data, 1)

    def peer(count: int) -> None:
        for _ in range(count):
            hashlib.md5(json.dumps(data, sort_keys=True).encode()).hexdigest()

    assert SyncState.from_data(data, 1).checksum == hashlib.md5(json.dumps(data, sort_keys=True).encode()).hexdigest()
    by_turns(ours, peer, 100, ("python_from_data", "json_and_hashlib"))


PARTS = {"invoke": invoke, "record": record, "summary": summary, "from-data": from_data}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
