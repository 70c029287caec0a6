"""A cluster in this process: its nodes are the objects that were registered."""

import asyncio
import contextlib
import time
from datetime import datetime, timezone

import pytest
from edgeward import (
    EdgeCluster,
    EdgeExecutionError,
    EdgeFunction,
    EdgeMetrics,
    EdgeNode,
    EdgeNodeStatus,
    EdgeTimeoutError,
    InvocationRecord,
)


def test_a_node_of_a_cluster_is_the_object_that_was_registered() -> None:
    cluster = EdgeCluster()
    node = EdgeNode("edge-01", "warehouse", last_heartbeat=datetime(2020, 1, 1), status=EdgeNodeStatus.OFFLINE)
    runtime = cluster.register_node(node)
    assert cluster.get_node("edge-01") is node and cluster.get_runtime("edge-01") is runtime and runtime.node is node
    assert cluster.list_nodes() == [node] and cluster.list_nodes()[0] is node
    before = datetime.now()
    cluster.heartbeat("edge-01")
    assert node.status is EdgeNodeStatus.ONLINE
    assert node.last_heartbeat.replace(microsecond=0) >= before.replace(microsecond=0)
    cluster.heartbeat("absent")
    assert cluster.get_node("absent") is None and cluster.get_runtime("absent") is None
    assert cluster.deregister_node("edge-01") and not cluster.deregister_node("edge-01")
    assert cluster.list_nodes() == []


@pytest.mark.parametrize("moment", [datetime.min, datetime.max, datetime.now(timezone.utc)], ids=["min", "max", "aware"])
def test_a_node_may_have_been_heard_at_any_time(moment: datetime) -> None:
    cluster = EdgeCluster()
    node = EdgeNode("edge-01", "n", last_heartbeat=moment)
    cluster.register_node(node)
    assert node.last_heartbeat is moment
    cluster.heartbeat("edge-01")
    assert abs((datetime.now() - node.last_heartbeat).total_seconds()) < 60


def test_nodes_are_listed_in_their_order_and_by_the_status_that_they_show() -> None:
    cluster = EdgeCluster()
    nodes = [EdgeNode(id, id) for id in ["b", "a", "c"]]
    for node in nodes:
        cluster.register_node(node)
    nodes[1].status = EdgeNodeStatus.DEGRADED
    assert [node.id for node in cluster.list_nodes()] == ["b", "a", "c"]
    assert cluster.list_nodes(status=EdgeNodeStatus.DEGRADED) == [nodes[1]]
    assert cluster.list_nodes(EdgeNodeStatus.ONLINE) == [nodes[0], nodes[2]]
    assert cluster.health() == {"nodes": 3, "online": 2, "degraded": 1, "syncing": 0, "offline": 0, "assignments": 0}


def test_a_node_that_is_registered_again_keeps_its_runtime() -> None:
    cluster = EdgeCluster()
    runtime = cluster.register_node(EdgeNode("edge-01", "old"))
    cluster.deploy_to_all(EdgeFunction("fn-1", "f", lambda: 42))
    renamed = EdgeNode("edge-01", "new")
    assert cluster.register_node(renamed) is runtime and runtime.node is renamed and cluster.get_node("edge-01") is renamed
    assert runtime.invoke("fn-1") == 42


def test_a_function_goes_to_all_nodes_or_to_one() -> None:
    cluster = EdgeCluster()
    function = EdgeFunction("fn-1", "f", lambda item: item)
    assert cluster.deploy_to_all(function) == 0
    first, second = (cluster.register_node(EdgeNode(id, id)) for id in ["a", "b"])
    assert cluster.deploy_to_node("b", function) is None
    assert (first.list_functions(), second.list_functions()) == ([], [function])
    assert cluster.deploy_to_all(function) == 2
    item = object()
    assert first.invoke("fn-1", item) is item and first.list_functions()[0] is function
    assert cluster.health()["assignments"] == 2
    assert second.undeploy("fn-1") and cluster.health()["assignments"] == 1
    second.deploy(function)
    assert cluster.health()["assignments"] == 2
    with pytest.raises(ValueError, match="node not found: `c`"):
        cluster.deploy_to_node("c", function)
    assert cluster.documents.list() == []


def test_deploying_can_be_awaited() -> None:
    async def main() -> None:
        cluster = EdgeCluster()
        runtime = cluster.register_node(EdgeNode("a", "a"))
        function = EdgeFunction("fn-1", "f", lambda: 1)
        assert await cluster.deploy_to_all_async(function) == 1
        assert await cluster.deploy_to_node_async("a", EdgeFunction("fn-2", "f", lambda: 2)) is None
        assert [await runtime.invoke_async(id) for id in ["fn-1", "fn-2"]] == [1, 2]
        assert runtime.list_functions()[0] is function

    asyncio.run(main())


def test_a_call_goes_to_a_node_that_does_well_and_routes_show_which() -> None:
    def fails(number: int) -> int:
        raise OSError("broken")

    resilience = {"balance": "round_robin", "idempotent": True, "breaker": {"min_calls": 2, "open_seconds": 30}}
    cluster = EdgeCluster()
    for id, handler in [("edge-01", fails), ("edge-02", lambda number: 2 * number)]:
        cluster.register_node(EdgeNode(id, id))
        cluster.deploy_to_node(id, EdgeFunction("double", "double", handler, resilience=resilience))
    assert [cluster.call("double", number) for number in range(20)] == [2 * number for number in range(20)]
    assert asyncio.run(call_soon(cluster, 21)) == 42
    [route] = cluster.routes()
    assert (route["function"], route["balance"], route["calls"]) == ("double", "round_robin", 21)
    bad, good = sorted(route["candidates"], key=lambda candidate: str(candidate["node"]))
    assert (bad["node"], bad["breaker"], bad["failures"], good["successes"]) == ("edge-01", "open", 2, 21), route
    with pytest.raises(EdgeExecutionError, match="broken"):
        cluster.get_runtime("edge-01").invoke("double", 1)


def test_one_call_may_say_how_long_it_has_and_that_it_may_run_twice() -> None:
    def fails(idempotent: bool, timeout_seconds: float) -> object:
        raise OSError("broken")

    def answers(idempotent: bool, timeout_seconds: float) -> object:
        time.sleep(timeout_seconds)
        return idempotent

    cluster = EdgeCluster()
    for id, handler in [("edge-01", fails), ("edge-02", answers)]:
        cluster.register_node(EdgeNode(id, id))
        cluster.deploy_to_node(id, EdgeFunction("f", "f", handler, resilience={"balance": "round_robin"}))
    # What the call says of itself, and the arguments of the handler, are apart though they have the same names.
    twice = cluster.calling(idempotent=True)
    assert [twice.call("f", timeout_seconds=0, idempotent=n) for n in range(4)] == [0, 1, 2, 3]
    once = cluster.calling(timeout_seconds=30)
    failed = 0
    for _ in range(4):
        with contextlib.suppress(EdgeExecutionError):
            once.call("f", True, 0)
            continue
        failed += 1
    assert failed == 2, "what may not run twice fails where it fails"

    async def late() -> None:
        await cluster.calling(0.05, idempotent=True).call_async("f", True, 2)

    with pytest.raises(EdgeTimeoutError):
        asyncio.run(late())


async def call_soon(cluster: EdgeCluster, number: int) -> object:
    return await cluster.call_async("double", number)


def test_what_is_wrong_with_a_call_or_how_it_is_routed_is_told() -> None:
    cluster = EdgeCluster()
    cluster.register_node(EdgeNode("edge-01", "edge-01"))
    for id in ["absent", "no id"]:
        with pytest.raises(ValueError, match="(?i)function not found") as caught:
            cluster.call(id)
        assert getattr(caught.value, "kind") == "not_found"
    slow = EdgeFunction("slow", "slow", lambda: time.sleep(0.4), resilience={"deadline_seconds": 0.05})
    cluster.deploy_to_all(slow)
    with pytest.raises(EdgeTimeoutError, match="did not answer within"):
        cluster.call("slow")
    for seconds in [-1, float("nan")]:
        with pytest.raises(ValueError, match="`timeout_seconds` is not valid"):
            cluster.calling(seconds)
    for resilience, why in [
        ({"balance": "fastest"}, "unknown variant `fastest`"),
        ({"retry": {"attempts": -1}}, "`-1`"),
        ({"retry": {"attempts": 11}}, "attempts of the resilience is 11"),
        ({"tries": 1}, "unknown field `tries`"),
    ]:
        with pytest.raises(ValueError, match=why) as caught:
            cluster.deploy_to_all(EdgeFunction("f", "f", lambda: 1, resilience=resilience))
        assert getattr(caught.value, "kind") == "invalid_input"


def test_metrics_answer_what_the_specification_asks() -> None:
    metrics = EdgeMetrics()
    assert (metrics.success_rate(), metrics.avg_latency_ms(), metrics.error_count()) == (100.0, 0.0, 0)
    metrics.record(InvocationRecord(function_id="fn-1", node_id="edge-01", duration_ms=42.5, success=True))
    metrics.record(InvocationRecord("fn-2", "edge-02", 57.5, False, error="boom"))
    assert (metrics.total_invocations(), metrics.total_invocations(function_id="fn-1"), metrics.error_count()) == (2, 1, 1)
    assert (metrics.success_rate(), metrics.avg_latency_ms()) == (50.0, 50.0)
    summary = metrics.summary()
    assert {"total_invocations", "success_rate", "avg_latency_ms", "error_count"} <= summary.keys()
    assert (summary["total_invocations"], summary["success_rate"], summary["avg_latency_ms"], summary["error_count"]) == (2, 50.0, 50.0, 1)
    assert metrics.summary(node_id="edge-02")["error_count"] == 1
    assert 'faas_invocations_total{faas_name="fn-1",edgeward_node_id="edge-01"} 1' in metrics.prometheus()
    with pytest.raises(ValueError, match="function id"):
        metrics.record(InvocationRecord("no id", "edge-01", 1.0, True))
