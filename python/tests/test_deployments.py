"""Deployments of a cluster in this process: callables and components by target and strategy."""

import gc
import os
import threading
import weakref
from typing import Any

import pytest
from edgeward import EdgeCluster, EdgeExecutionError, EdgeFunction, EdgeNode, EdgeRuntime, EdgeTimeoutError
from test_client import BUILT, wait_until

SITES = {"edge-01": "berlin", "edge-02": "berlin", "edge-03": "paris"}
AT_ONCE = {"batch": "100%", "bake_seconds": 0}


def cluster_of_three() -> tuple[EdgeCluster, list[EdgeRuntime]]:
    cluster = EdgeCluster()
    return cluster, [cluster.register_node(EdgeNode(id, id, labels={"site": site})) for id, site in SITES.items()]


def says(word: str) -> EdgeFunction:
    return EdgeFunction("fn-1", "f", lambda: word)


def said(runtimes: list[EdgeRuntime]) -> list[str | None]:
    return [runtime.invoke("fn-1") if runtime.list_functions() else None for runtime in runtimes]


def rolled_out(cluster: EdgeCluster, function: EdgeFunction, to: str = "all", strategy: Any = AT_ONCE) -> dict[str, Any]:
    cluster.deployments.put(function, to, strategy)
    return cluster.deployments.wait(function.id, 30)


def test_two_revisions_of_a_function_are_two_callables_and_each_can_be_gone_back_to() -> None:
    cluster, runtimes = cluster_of_three()
    deployments = cluster.deployments
    first, second = says("first"), says("second")
    plan = deployments.put(first, "site=berlin", dry_run=True)
    assert (plan["revision"], plan["is_new"], plan["waves"][0]["nodes"]) == (1, True, ["edge-01", "edge-02"])
    assert deployments.list() == [] and said(runtimes) == [None] * 3
    assert rolled_out(cluster, first, "site=berlin")["state"] == "completed"
    assert said(runtimes) == ["first", "first", None] and runtimes[0].list_functions()[0] is first
    deployment = deployments.put(second, "all", AT_ONCE, if_generation=deployments.get("fn-1")["generation"])
    assert (deployment["revision"], deployment["target"]) == (2, "all")
    assert deployments.wait("fn-1", 30)["to"] == 2
    assert said(runtimes) == ["second"] * 3 and runtimes[0].list_functions()[0] is second
    assert deployments.put(second, "all", AT_ONCE)["generation"] == deployment["generation"], "the same changes nothing"
    assert [change["field"] for change in deployments.diff("fn-1", 1, 2)] == ["handler"]
    assert deployments.rollback("fn-1")["revision"] == 1
    assert deployments.wait("fn-1", 30)["state"] == "completed"
    assert said(runtimes) == ["first"] * 3 and runtimes[2].list_functions()[0] is first
    assert [rollout["to"] for rollout in deployments.rollouts()] == [1, 2, 1]
    assert [revision["revision"] for revision in deployments.revisions("fn-1")] == [1, 2]
    with pytest.raises(ValueError, match="generation") as caught:
        deployments.put(second, if_generation=0)
    assert getattr(caught.value, "kind") == "conflict"
    with pytest.raises(ValueError, match="deployed by target"):
        cluster.deploy_to_all(second)


def test_a_canary_that_raises_goes_back_and_no_other_node_saw_it() -> None:
    cluster, runtimes = cluster_of_three()
    rolled_out(cluster, says("well"))

    def broken() -> None:
        raise RuntimeError("broken")

    canary = {"kind": "canary", "bake_seconds": 60, "gate": {"min_samples": 10}}
    generation = cluster.deployments.put(EdgeFunction("fn-1", "f", broken), strategy=canary)["generation"]
    failed = dict.fromkeys(SITES, 0)

    def is_back() -> bool:
        for runtime in runtimes:
            try:
                assert runtime.invoke("fn-1") == "well"
            except EdgeExecutionError:
                failed[runtime.node.id] += 1
        rollout = cluster.deployments.rollout("fn-1")
        return rollout["generation"] == generation and rollout["state"] == "rolled_back"

    wait_until(is_back)
    assert "invocations failed" in cluster.deployments.wait("fn-1", 0)["reason"]
    assert sorted(count > 0 for count in failed.values()) == [False, False, True], failed
    assert said(runtimes) == ["well"] * 3


def test_what_nodes_ran_by_themselves_is_gone_back_to() -> None:
    cluster, runtimes = cluster_of_three()
    alone = says("alone")
    cluster.deploy_to_all(alone)
    assert rolled_out(cluster, says("deployed"))["from"] == 1
    assert said(runtimes) == ["deployed"] * 3
    cluster.deployments.rollback("fn-1")
    assert cluster.deployments.wait("fn-1", 30)["state"] == "completed"
    assert said(runtimes) == ["alone"] * 3 and runtimes[0].list_functions() == [alone]


def test_somebody_pauses_resumes_approves_and_aborts() -> None:
    cluster, runtimes = cluster_of_three()
    deployments = cluster.deployments
    step = {"batch": 1, "bake_seconds": 0, "approve": True}
    rolled_out(cluster, says("first"))
    rollout = rolled_out(cluster, says("second"), strategy=step)
    assert rollout["approval"] == "awaited" and sorted(map(str, said(runtimes))) == ["first", "first", "second"]
    assert deployments.pause(rollout["id"])["state"] == "paused" == deployments.wait("fn-1", 0)["state"]
    deployments.resume("fn-1")
    assert deployments.approve("fn-1")["approval"] == "given"
    assert deployments.wait("fn-1", 30)["state"] == "completed" and said(runtimes) == ["second"] * 3
    rolled_out(cluster, says("third"), strategy=step)
    deployments.abort("fn-1")
    assert deployments.wait("fn-1", 30)["state"] == "rolled_back" and said(runtimes) == ["second"] * 3
    for wrong, why in [
        (lambda: deployments.pause("fn-1"), "it is rolled back"),
        (lambda: deployments.pause("absent"), "rollout not found"),
        (lambda: deployments.get("absent"), "deployment not found"),
        (lambda: deployments.put(says("x"), "berlin"), "which nodes"),
        (lambda: deployments.put(says("x"), "node=absent"), "node not found"),
        (lambda: deployments.put(says("x"), strategy="sideways"), "`sideways` is no strategy"),
        (lambda: deployments.put(says("x"), strategy={"speed": 1}), "speed"),
        (lambda: deployments.wait("fn-1", -1), "timeout_seconds"),
    ]:
        with pytest.raises(ValueError, match=why):
            wrong()
    cluster.deployments.put(says("slow"), strategy={"batch": 1, "bake_seconds": 60})
    with pytest.raises(EdgeTimeoutError, match="fn-1"):
        deployments.wait("fn-1", 0.2)


def test_counted_functions_go_to_who_has_least_and_leave_a_node_that_is_drained() -> None:
    cluster, runtimes = cluster_of_three()
    cluster.deploy_to_node("edge-01", EdgeFunction("busy", "busy", lambda: None))
    for id in ["a", "b"]:
        assert cluster.deploy_least_loaded(EdgeFunction(id, id, lambda id=id: id))["target"] == "count=1"
        cluster.deployments.wait(id, 30)
    on = {id: [runtime.node.id for runtime in runtimes if id in str(runtime.list_functions())] for id in ["'a'", "'b'"]}
    assert sorted(on.values()) == [["edge-02"], ["edge-03"]]
    cluster.drain_node("edge-02")
    wait_until(lambda: runtimes[1].list_functions() == [])
    assert len(runtimes[0].list_functions() + runtimes[2].list_functions()) == 3
    cluster.undrain_node("edge-02")
    moves = cluster.deployments.rebalance(1)
    assert [move["to"] for move in moves] == ["edge-02"]
    wait_until(lambda: len(runtimes[1].list_functions()) == 1)
    with pytest.raises(ValueError, match="node not found"):
        cluster.drain_node("absent")


def test_a_function_for_one_node_runs_on_one_and_moves_by_a_drain() -> None:
    cluster, runtimes = cluster_of_three()
    assert cluster.deployments.put(says("alone"), "one")["target"] == "one"

    def runs_on(id: str) -> bool:
        answers = {runtime.node.id: answer(runtime) for runtime in runtimes}
        return {node for node, said in answers.items() if said == "alone"} == {id}

    def answer(runtime: EdgeRuntime) -> object:
        try:
            return runtime.invoke("fn-1")
        except (ConnectionError, ValueError):
            return None

    wait_until(lambda: runs_on("edge-01"))
    assert cluster.deployments.get("fn-1")["lease"] == "edge-01"
    cluster.drain_node("edge-01")
    wait_until(lambda: runs_on("edge-02"))


def test_a_node_that_holds_gets_no_revision_until_it_does_not() -> None:
    cluster, runtimes = cluster_of_three()
    cluster.hold_node("edge-02", "inventory", seconds=3600)
    assert "inventory" in cluster.deployments.put(says("first"), dry_run=True)["pending"]["edge-02"]
    rolled_out(cluster, says("first"))
    assert said(runtimes) == ["first", None, "first"]
    cluster.unhold_node("edge-02")
    wait_until(lambda: said(runtimes) == ["first"] * 3)


def test_a_node_that_comes_later_gets_what_is_deployed_and_loses_what_is_removed() -> None:
    cluster, runtimes = cluster_of_three()
    function = EdgeFunction("fn-1", "f", artifact=BUILT / "hello.wasm")
    assert rolled_out(cluster, function)["state"] == "completed"
    late = cluster.register_node(EdgeNode("late", "late"))
    wait_until(lambda: late.list_functions() == [function])
    assert late.invoke("fn-1") == runtimes[0].invoke("fn-1") == b"hello from the edge\n"
    rolled_out(cluster, says("second"))
    later = cluster.register_node(EdgeNode("later", "later"))
    wait_until(lambda: later.list_functions() != [] and later.invoke("fn-1") == "second")
    assert cluster.deployments.delete("fn-1") and not cluster.deployments.delete("fn-1")
    wait_until(lambda: all(runtime.list_functions() == [] for runtime in [late, later, *runtimes]))


def test_what_is_no_revision_any_more_is_let_go() -> None:
    class Code:
        def __call__(self) -> str:
            return "code"

    cluster, runtimes = cluster_of_three()
    code = Code()
    is_there = weakref.ref(code)
    rolled_out(cluster, EdgeFunction("fn-1", "f", code))
    del code
    gc.collect()
    assert is_there() is not None and said(runtimes) == ["code"] * 3
    cluster.deployments.delete("fn-1")
    wait_until(lambda: said(runtimes) == [None] * 3)

    def is_gone() -> bool:
        gc.collect()
        return is_there() is None

    wait_until(is_gone)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_was_forked_deploys_too() -> None:
    cluster, runtimes = cluster_of_three()
    rolled_out(cluster, says("parent"))
    child = os.fork()
    if child == 0:
        well = rolled_out(cluster, says("child"))["state"] == "completed" and said(runtimes) == ["child"] * 3
        os._exit(0 if well else 1)
    ended = threading.Timer(60, os.kill, (child, 9))
    ended.start()
    status = os.waitpid(child, 0)[1]
    ended.cancel()
    assert status == 0
    assert said(runtimes) == ["parent"] * 3
