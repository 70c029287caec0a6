"""What `mypy --strict` is shown: every class, as a user writes it."""

import asyncio
from collections.abc import Awaitable

from edgeward import (
    AsyncClient,
    Client,
    Document,
    Documents,
    EdgeCluster,
    EdgeExecutionError,
    EdgeFunction,
    EdgeMetrics,
    EdgeNode,
    EdgeNodeStatus,
    EdgeRuntime,
    EdgeSynchronizer,
    EdgeTimeoutError,
    InvocationRecord,
    SyncState,
    Topics,
    TopicTrigger,
)


def double(number: int) -> int:
    return 2 * number


def main() -> None:
    node = EdgeNode("edge-01", "warehouse", status=EdgeNodeStatus.ONLINE)
    node.capabilities.append("gpu")
    cluster = EdgeCluster()
    runtime: EdgeRuntime = cluster.register_node(node)
    found: EdgeNode | None = cluster.get_node("edge-01")
    assert found is node
    count: int = cluster.deploy_to_all(EdgeFunction(id="fn-1", name="double", handler=double, timeout_seconds=0.5))
    try:
        assert count == 1 and runtime.invoke("fn-1", 21) == 42
    except EdgeTimeoutError as error:
        print(error.kind)
    except EdgeExecutionError as error:
        print(error.status, error.stderr_tail.upper())
    metrics: EdgeMetrics = runtime.metrics
    metrics.record(InvocationRecord("fn-1", "edge-01", 1.5, True))
    rate: float = metrics.summary()["success_rate"]
    nodes: int = cluster.health()["nodes"]
    sync = EdgeSynchronizer()
    state: SyncState = sync.update_local({"a": 1})
    versions: list[int] = [change["version"] for change in sync.get_pending_changes()]
    document: Document = Documents()["cellar"]
    document["doors"] = 2
    state_of: str = cluster.deployments.wait(cluster.deploy_least_loaded(EdgeFunction("fn-2", "f", double))["function"], 30)["state"]
    call: Awaitable[object] = runtime.invoke_async("fn-1", 1)
    topics = Topics()
    position: int = topics.publish("site/berlin/temp", "21.5", key="sensor-7")
    with topics.on(["site/#"], runtime, "fn-1", attempts=2) as trigger:
        watched: TopicTrigger = trigger
        print(watched.view()["delivered"])
    for message in topics.follow("site/#", from_position=position):
        print(message["data"])
        break
    print(rate, nodes, state.checksum.upper(), versions, call, state_of)


async def over_http(url: str) -> bytes:
    state: SyncState | None = Client(url).document("cellar")
    client = AsyncClient(url, token=None)
    await client.put_deployment(EdgeFunction("fn-1", "double", artifact="double.wasm"), "site=berlin", {"kind": "canary", "batch": "10%"})
    ended: dict[str, object] = await client.wait_for_rollout("fn-1", 60)
    print(ended["state"])
    if state is not None:
        await client.put_document("cellar", {"doors": 3}, if_state=state)
    return await client.invoke("fn-1", "payload")


if __name__ == "__main__":
    asyncio.run(over_http("http://127.0.0.1:7700"))
