"""Components run from Python as they do everywhere else."""

import asyncio
from pathlib import Path

import pytest
from edgeward import Documents, EdgeCluster, EdgeExecutionError, EdgeFunction, EdgeNode, EdgeRuntime, EdgeTimeoutError

BUILT = Path(__file__).parents[2] / "functions/built"
CSV = "date,temp\n2010/01/01 00:00,32.0\n"
IN_CELSIUS = b"date,temp\n2010/01/01 00:00,0.0\n"
# (module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))
ENDLESS = bytes.fromhex("0061736d01000000 010401600000 03020100 0503010001 071302066d656d6f72790200065f73746172740000 0a0901070003400c000b0b")


def test_a_component_is_invoked_with_bytes_or_text() -> None:
    runtime = EdgeRuntime(EdgeNode("edge-01", "n"))
    function = EdgeFunction("celsius", "celsius", artifact=BUILT / "celsius.wasm")
    runtime.deploy(function)
    assert runtime.list_functions()[0] is function
    for payload in [CSV, CSV.encode(), bytearray(CSV, "utf-8")]:
        assert runtime.invoke("celsius", payload, content_type="text/csv") == IN_CELSIUS
    for wrong in [
        lambda: runtime.invoke("celsius", 7),
        lambda: runtime.invoke("celsius", b"", b""),
        lambda: runtime.invoke("celsius", other=1),
    ]:
        with pytest.raises(TypeError, match="a component takes one payload"):
            wrong()
    assert asyncio.run(awaited(runtime)) == IN_CELSIUS
    assert runtime.metrics.total_invocations("celsius") == 4


async def awaited(runtime: EdgeRuntime) -> object:
    return await runtime.invoke_async("celsius", CSV)


def test_a_component_that_fails_is_an_error_with_what_it_left_behind() -> None:
    runtime = EdgeRuntime(EdgeNode("edge-01", "n"))
    runtime.deploy(EdgeFunction("celsius", "celsius", artifact=str(BUILT / "celsius.wasm")))
    with pytest.raises(EdgeExecutionError) as caught:
        runtime.invoke("celsius", b"no csv")
    assert (caught.value.kind, caught.value.exit_code, caught.value.__cause__) == ("execution_failed", 1, None)
    assert caught.value.stderr_tail


def test_a_component_is_deployed_to_a_cluster_from_its_bytes() -> None:
    cluster = EdgeCluster()
    runtime = cluster.register_node(EdgeNode("edge-01", "n"))
    assert cluster.deploy_to_all(EdgeFunction("hello", "hello", artifact=(BUILT / "hello.wasm").read_bytes())) == 1
    assert b"hello" in runtime.invoke("hello").lower()


def test_a_component_that_never_ends_is_stopped_at_its_deadline() -> None:
    runtime = EdgeRuntime(EdgeNode("edge-01", "n"))
    runtime.deploy(EdgeFunction("endless", "endless", artifact=ENDLESS, timeout_seconds=0.2))
    with pytest.raises(EdgeTimeoutError, match="was stopped"):
        runtime.invoke("endless")


def test_a_component_writes_to_the_documents_that_it_is_granted() -> None:
    documents = Documents(node_id="edge-01")
    runtime = EdgeRuntime(EdgeNode("edge-01", "n"), documents=documents)
    runtime.deploy(EdgeFunction("visits", "visits", artifact=BUILT / "visits.wasm", documents=["visits"]))
    assert runtime.invoke("visits") and runtime.invoke("visits")
    state = documents["visits"].view()
    assert state is not None and 2 in state.data.values()
