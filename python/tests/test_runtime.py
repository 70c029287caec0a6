"""Handlers: what is passed to them, how they end, and what their callers are told."""

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from edgeward import EdgeExecutionError, EdgeFunction, EdgeNode, EdgeRuntime, EdgeTimeoutError

# A component may take a moment to compile; nothing else here takes long.
LATE_SECONDS = 10.0


def runtime_with(handler: Callable[..., Any], **fields: Any) -> EdgeRuntime:
    runtime = EdgeRuntime(EdgeNode("edge-01", "n"))
    runtime.deploy(EdgeFunction("fn-1", "f", handler, **fields))
    return runtime


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LATE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.005)


def test_arguments_and_results_pass_by_identity() -> None:
    seen: list[Any] = []

    def handler(*args: Any, **kwargs: Any) -> Any:
        seen.append((args, kwargs))
        return args[0]

    first, named = object(), lambda: None
    result = runtime_with(handler).invoke("fn-1", first, 2, key=named)
    assert result is first
    (args, kwargs) = seen[0]
    assert args == (first, 2) and args[0] is first and kwargs["key"] is named


def test_a_runtime_keeps_the_very_objects() -> None:
    node = EdgeNode("edge-01", "n")
    runtime = EdgeRuntime(node)
    functions = [EdgeFunction(id, id, print) for id in ["b", "a"]]
    for function in functions:
        runtime.deploy(function)
    assert runtime.node is node
    assert [one is two for one, two in zip(runtime.list_functions(), functions)] == [True, True]
    assert runtime.undeploy("b") and not runtime.undeploy("b")
    assert runtime.list_functions() == functions[1:]


def test_an_unknown_function_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="Function not found: fn-9"):
        runtime_with(print).invoke("fn-9")


def test_an_exception_of_a_handler_is_the_cause() -> None:
    original = KeyError("missing")

    def handler() -> None:
        raise original

    runtime = runtime_with(handler)
    with pytest.raises(EdgeExecutionError, match="function `fn-1` failed: KeyError: 'missing'") as caught:
        runtime.invoke("fn-1")
    assert caught.value.__cause__ is original and caught.value.kind == "execution_failed"
    assert not isinstance(caught.value, TimeoutError)
    assert original.__traceback__ is not None


def test_a_timeout_that_a_handler_raises_is_no_deadline() -> None:
    def handler() -> None:
        raise TimeoutError("its own")

    with pytest.raises(EdgeExecutionError) as caught:
        runtime_with(handler).invoke("fn-1")
    assert not isinstance(caught.value, TimeoutError) and isinstance(caught.value.__cause__, TimeoutError)


def test_an_exit_or_an_interrupt_in_a_handler_ends_only_the_call() -> None:
    for error in [SystemExit, KeyboardInterrupt]:

        def handler(error: type[BaseException] = error) -> None:
            raise error

        with pytest.raises(EdgeExecutionError) as caught:
            runtime_with(handler).invoke("fn-1")
        assert isinstance(caught.value.__cause__, error)


def test_the_deadline_returns_to_the_caller_while_the_handler_blocks() -> None:
    release = threading.Event()
    runtime = runtime_with(release.wait, timeout_seconds=0.1)
    begun = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        runtime.invoke("fn-1")
    assert time.monotonic() - begun < LATE_SECONDS / 2
    assert isinstance(caught.value, EdgeExecutionError) and type(caught.value) is EdgeTimeoutError and caught.value.kind == "timeout"
    assert runtime.metrics.summary()["errors"] == {"timeout": 1}
    release.set()


def test_a_handler_that_computes_without_end_keeps_nobody_waiting() -> None:
    go_on = [True]

    def handler() -> None:
        while go_on[0]:
            pass

    with pytest.raises(TimeoutError):
        runtime_with(handler, timeout_seconds=0.1).invoke("fn-1")
    go_on[0] = False


def test_handlers_that_never_return_make_a_function_overloaded_until_they_do() -> None:
    release = threading.Event()
    runtime = runtime_with(release.wait, timeout_seconds=0.05, max_concurrency=2, max_queue=0)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            runtime.invoke("fn-1")
    with pytest.raises(EdgeExecutionError, match="overloaded") as caught:
        runtime.invoke("fn-1")
    assert caught.value.kind == "overloaded" and not isinstance(caught.value, TimeoutError)
    release.set()

    def is_free() -> bool:
        with contextlib.suppress(EdgeExecutionError):
            return runtime.invoke("fn-1") is True
        return False

    wait_until(is_free)


def test_the_threads_of_all_functions_together_are_bounded() -> None:
    release = threading.Event()
    runtime = EdgeRuntime(EdgeNode("edge-01", "n"))
    for number in range(3):
        runtime.deploy(EdgeFunction(f"fn-{number}", "f", release.wait, timeout_seconds=0.001, max_concurrency=128, max_queue=0))
    kinds = []
    for call in range(3 * 128):
        with pytest.raises(EdgeExecutionError) as caught:
            runtime.invoke(f"fn-{call % 3}")
        kinds.append(caught.value.kind)
    assert kinds[:200] == ["timeout"] * 200 and kinds[-1] == "overloaded"
    threads = sum(thread.name.startswith("edgeward-handler-") for thread in threading.enumerate())
    assert threads <= 256
    release.set()

    def works() -> bool:
        with contextlib.suppress(EdgeExecutionError):
            return runtime.invoke("fn-0") is True
        return False

    wait_until(works)


def test_the_interpreter_is_free_while_a_call_waits() -> None:
    begun, done = threading.Event(), threading.Event()

    def handler() -> str:
        begun.set()
        assert done.wait(LATE_SECONDS)
        return "done"

    runtime = runtime_with(handler)
    results: list[Any] = []
    caller = threading.Thread(target=lambda: results.append(runtime.invoke("fn-1")))
    caller.start()
    assert begun.wait(LATE_SECONDS)
    done.set()
    caller.join(LATE_SECONDS)
    assert results == ["done"]


def test_many_callers_each_get_their_own_answer() -> None:
    runtime = runtime_with(lambda number: number)
    wrong: list[int] = []

    def call(caller: int) -> None:
        for number in range(200):
            if runtime.invoke("fn-1", caller * 1000 + number) != caller * 1000 + number:
                wrong.append(number)

    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == [] and runtime.metrics.total_invocations() == 1600


def test_a_handler_may_call_functions() -> None:
    runtime = EdgeRuntime(EdgeNode("edge-01", "n"))
    runtime.deploy(EdgeFunction("inner", "inner", lambda number: number + 1))
    runtime.deploy(EdgeFunction("outer", "outer", lambda number: runtime.invoke("inner", number) * 2))
    assert runtime.invoke("outer", 20) == 42


def test_a_coroutine_is_awaited() -> None:
    async def handler(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    class Callable:
        async def __call__(self, number: int) -> int:
            return await handler(number)

    assert runtime_with(handler).invoke("fn-1", 21) == 42
    assert runtime_with(Callable()).invoke("fn-1", 21) == 42


def test_a_coroutine_past_its_deadline_is_cancelled_and_gives_its_thread_back() -> None:
    ended = threading.Event()

    async def handler() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.set()

    runtime = runtime_with(handler, timeout_seconds=0.05, max_concurrency=1, max_queue=0)
    with pytest.raises(TimeoutError):
        runtime.invoke("fn-1")
    assert ended.wait(LATE_SECONDS)


def test_invoking_can_be_awaited() -> None:
    release = threading.Event()

    async def main() -> None:
        runtime = runtime_with(lambda item: item)
        item = object()
        assert await runtime.invoke_async("fn-1", item) is item
        many = await asyncio.gather(*[runtime.invoke_async("fn-1", number) for number in range(50)])
        assert many == list(range(50))
        await runtime.deploy_async(EdgeFunction("bad", "bad", lambda: 1 / 0))
        with pytest.raises(EdgeExecutionError) as caught:
            await runtime.invoke_async("bad")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        await runtime.deploy_async(EdgeFunction("slow", "slow", release.wait, timeout_seconds=0.05))
        with pytest.raises(EdgeTimeoutError):
            await runtime.invoke_async("slow")
        with pytest.raises(ValueError, match="Function not found"):
            await runtime.invoke_async("absent")

    asyncio.run(main())
    release.set()


def test_a_call_that_is_cancelled_is_given_up() -> None:
    release = threading.Event()

    async def main() -> None:
        runtime = runtime_with(release.wait)
        call = asyncio.ensure_future(runtime.invoke_async("fn-1"))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())
    release.set()


def test_metrics_are_those_of_the_runtime() -> None:
    runtime = runtime_with(lambda number: 1 / number)
    assert runtime.invoke("fn-1", 2) == 0.5
    with pytest.raises(EdgeExecutionError):
        runtime.invoke("fn-1", 0)
    metrics = runtime.metrics
    assert (metrics.total_invocations(), metrics.error_count(), metrics.success_rate()) == (2, 1, 50.0)
    assert metrics.total_invocations(function_id="fn-1", node_id="edge-01") == 2
    assert metrics.total_invocations(function_id="other") == 0
    assert metrics.summary()["errors"] == {"execution_failed": 1}


def test_what_is_wrong_with_a_function_is_said_when_it_is_deployed() -> None:
    runtime = EdgeRuntime(EdgeNode("edge-01", "n"))
    for function, error, why in [
        (EdgeFunction("bad id", "n", print), ValueError, "`bad id` is not valid"),
        (EdgeFunction("f", "n", print, memory_mb=0), ValueError, "memory_mb"),
        (EdgeFunction("f", "n", print, memory_mb=-1), ValueError, "`memory_mb` is not valid: the number is out of range"),
        (EdgeFunction("f", "n", print, max_queue=2**70), ValueError, "`max_queue` is not valid"),
        (EdgeFunction("f", "n", print, memory_mb="1"), TypeError, "`memory_mb` is not valid"),  # type: ignore[arg-type]
        (EdgeFunction("f", "n", print, environment={"A": 1}), TypeError, "`environment` is not valid"),  # type: ignore[dict-item]
        (EdgeFunction("f", "n", print, timeout_seconds=-1), ValueError, "timeout_seconds"),
        (EdgeFunction("f", "n", 7), TypeError, "not callable"),  # type: ignore[arg-type]
        (EdgeFunction(7, "n", print), TypeError, "must be a str, not int"),  # type: ignore[arg-type]
        (EdgeFunction("f", "n", print, artifact=b""), TypeError, "both a handler and an artifact"),
        (EdgeFunction("f", "n", artifact=b"no component"), ValueError, "refused"),
        (EdgeFunction("f", "n", artifact="/no/such/file.wasm"), FileNotFoundError, "no/such/file.wasm"),
    ]:
        with pytest.raises(error, match=why):
            runtime.deploy(function)
    with pytest.raises(ValueError, match="node id"):
        EdgeRuntime(EdgeNode("bad id", "n"))
    with pytest.raises(TypeError, match="`last_heartbeat` is not valid: it must be a datetime, not str"):
        EdgeRuntime(EdgeNode("edge-01", "n", last_heartbeat="now"))  # type: ignore[arg-type]
    assert runtime.list_functions() == []


def test_what_was_deployed_stays_as_it_was_until_it_is_deployed_again() -> None:
    runtime = EdgeRuntime(EdgeNode("edge-01", "n"))
    function = EdgeFunction("fn-1", "f", lambda: "old")
    runtime.deploy(function)
    function.handler = lambda: "new"
    assert runtime.invoke("fn-1") == "old"
    runtime.deploy(function)
    assert runtime.invoke("fn-1") == "new"


def test_nothing_of_a_call_or_a_function_is_kept() -> None:
    class Thing:
        def __call__(self, thing: "Thing") -> "Thing":
            return thing

    handler, argument = Thing(), Thing()
    gone = [weakref.ref(handler), weakref.ref(argument)]
    runtime = runtime_with(handler)
    assert runtime.invoke("fn-1", argument) is argument
    runtime.invoke("fn-1", None)
    del argument
    assert gone[1]() is None
    runtime.undeploy("fn-1")
    del handler
    gc.collect()
    assert gone[0]() is None


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


ABANDON = """
import threading, time
from edgeward import EdgeFunction, EdgeNode, EdgeRuntime
runtime = EdgeRuntime(EdgeNode("edge-01", "n"))
def spin():
    while True: pass
def nap():
    while True: time.sleep(0.001)
for number, handler in enumerate([spin, nap, threading.Event().wait, nap]):
    runtime.deploy(EdgeFunction(f"f{number}", "f", handler, timeout_seconds=0.02))
    try: runtime.invoke(f"f{number}")
    except TimeoutError: pass
print("end")
"""


def test_a_program_ends_though_handlers_never_do() -> None:
    for _ in range(5):
        ended = python(ABANDON)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "end\n", "")


def test_control_c_ends_a_wait() -> None:
    ended = python("""
import os, signal, threading, time
from edgeward import EdgeFunction, EdgeNode, EdgeRuntime
runtime = EdgeRuntime(EdgeNode("edge-01", "n"))
runtime.deploy(EdgeFunction("f", "f", threading.Event().wait))
# Who runs the tests in the background may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
begun = time.monotonic()
try: runtime.invoke("f")
except KeyboardInterrupt: print("interrupted", time.monotonic() - begun < 10)
""")
    assert (ended.returncode, ended.stdout) == (0, "interrupted True\n"), ended.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_has_threads_of_its_own() -> None:
    ended = python("""
import os
from edgeward import EdgeFunction, EdgeNode, EdgeRuntime
runtime = EdgeRuntime(EdgeNode("edge-01", "n"))
runtime.deploy(EdgeFunction("f", "f", lambda: 42, timeout_seconds=5))
assert runtime.invoke("f") == 42
child = os.fork()
if child == 0:
    os._exit(0 if runtime.invoke("f") == 42 else 1)
print(os.waitpid(child, 0)[1], runtime.invoke("f"))
""")
    assert (ended.returncode, ended.stdout) == (0, "0 42\n"), ended.stderr
