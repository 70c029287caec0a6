"""A cluster in this process: its nodes are the objects that were registered."""

import asyncio
from datetime import datetime, timezone

import pytest
from edgeward import EdgeCluster, EdgeFunction, EdgeMetrics, EdgeNode, EdgeNodeStatus, InvocationRecord


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
