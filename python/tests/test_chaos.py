"""Experiments on a cluster in this process."""

import asyncio
from typing import Any

import pytest
from edgeward import EdgeCluster, EdgeFunction, EdgeNode
from test_client import BUILT


def experiment(**changes: Any) -> dict[str, Any]:
    return {
        "name": "one-fails",
        "before_seconds": 1,
        "duration_seconds": 3,
        "load": [{"function": "hello", "per_second": 20}],
        "fault": [{"kind": "error", "duration_seconds": 1, "blast_radius": "100%"}],
        "steady_state": [{"probe": "success_rate", "function": "hello", "at_least_percent": 99}],
        **changes,
    }


def cluster_of_two() -> EdgeCluster:
    cluster = EdgeCluster()
    for id in ["edge-01", "edge-02"]:
        cluster.register_node(EdgeNode(id, id))
    cluster.deploy_to_all(EdgeFunction("hello", "hello", artifact=BUILT / "hello.wasm"))
    return cluster


def test_an_experiment_is_refused_until_it_is_allowed_and_tells_what_came_of_it() -> None:
    cluster = cluster_of_two()
    with pytest.raises(PermissionError, match="--allow-chaos"):
        cluster.run_experiment(experiment())
    cluster.allow_chaos()
    with pytest.raises(ValueError, match="it has no disk of its own"):
        cluster.run_experiment(experiment(fault=[{"kind": "disk_full", "duration_seconds": 1}]))
    report = cluster.run_experiment(experiment())
    assert (report["verdict"], report["faults"][0]["nodes"]) == ("broken", ["edge-01", "edge-02"])
    runtime = cluster.get_runtime("edge-01")
    assert runtime is not None and runtime.invoke("hello", b"")
    assert [(known["id"], known["verdict"]) for known in cluster.experiments()] == [("one-fails:1", "broken")]


def test_an_experiment_can_be_awaited_and_ended() -> None:
    cluster = cluster_of_two()
    cluster.allow_chaos()

    async def run() -> dict[str, Any]:
        running = asyncio.ensure_future(cluster.run_experiment_async(experiment(duration_seconds=600)))
        while not cluster.experiments():
            await asyncio.sleep(0.05)
        ended = cluster.stop_experiment("one-fails:1")
        assert ended["reason"] == "somebody ended it"
        return await running

    assert asyncio.run(run())["verdict"] == "aborted"
