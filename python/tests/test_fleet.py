"""The client against a hub that runs, with nodes that joined it."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from edgeward import AsyncClient, Client, EdgeExecutionError, EdgeFunction, EdgeNodeStatus, EdgeTimeoutError, SyncState
from test_client import BINARY, BUILT, free_port, running, wait_until

LATE_SECONDS = 30.0

pytestmark = pytest.mark.skipif(BINARY is None, reason="EDGEWARD_BINARY names the daemon")


def address() -> str:
    return f"127.0.0.1:{free_port()}"


class Fleet:
    """A hub and the nodes `edge-01` and `edge-02`."""

    def __init__(self, hub: Client, nodes: dict[str, Client], stop: dict[str, contextlib.ExitStack]) -> None:
        self.hub, self.nodes, self._stop = hub, nodes, stop

    def stop(self, node: str) -> None:
        self._stop[node].close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    short = ["--heartbeat-seconds", "0.2", "--allow-chaos"]
    with contextlib.ExitStack() as stack:

        def start(command: str, name: str, *options: str) -> Client:
            api = address()
            return stops[name].enter_context(
                running(f"http://{api}", command, "--id", name, "--data-dir", str(folder / name), "--listen", api, *short, *options)
            )

        stops = {name: stack.enter_context(contextlib.ExitStack()) for name in ["hub", "edge-01", "edge-02"]}
        hub = start("hub", "hub", "--broker-listen", address())
        wait_until(lambda: hub.status()["standing"] == "active")
        assert hub.nodes() == [] and hub.functions() == []
        assert hub.deploy(function("hello"), all_nodes=True) == {"id": "hello", "nodes": 0}
        nodes = {}
        for name in ["edge-01", "edge-02"]:
            token = hub.join_token(name, expires_in_seconds=600)["token"]
            options = ["--functions-listen", address(), "--label", "site=berlin", "--capability", "gpu", "--join", token]
            nodes[name] = start("node", name, *options)
        wait_until(lambda: len(hub.nodes(EdgeNodeStatus.ONLINE)) == 2)
        yield Fleet(hub, nodes, stops)


def function(name: str, **fields: Any) -> EdgeFunction:
    return EdgeFunction(name, name, artifact=BUILT / f"{name}.wasm", **fields)


def serves(client: Client, function_id: str, nodes: int) -> bool:
    return [entry["state"] for entry in client.functions() if entry["id"] == function_id] == ["ready"] * nodes


def kind(error: pytest.ExceptionInfo[BaseException]) -> object:
    return getattr(error.value, "kind")


def test_the_nodes_of_a_fleet_are_told_with_their_labels_and_health(fleet: Fleet) -> None:
    hub = fleet.hub
    assert [(node["id"], node["status"], node["capabilities"]) for node in hub.nodes()] == [
        ("edge-01", "online", ["gpu"]),
        ("edge-02", "online", ["gpu"]),
    ]
    assert hub.nodes("offline") == [] and hub.status()["health"]["online"] == 2
    assert hub.label_node("edge-01", {"site": "paris"})["labels"]["site"] == "paris"
    assert hub.label_node("edge-01", {"site": None})["labels"] == hub.node("edge-01")["labels"] == {"site": "berlin"}
    with pytest.raises(ValueError, match="`asleep`") as caught:
        hub.nodes("asleep")
    assert kind(caught) == "invalid_input"
    with pytest.raises(ValueError, match="(?i)node not found") as caught:
        hub.node("absent")
    assert kind(caught) == "not_found"


def test_a_function_is_deployed_to_one_node_or_to_all_and_runs_there(fleet: Fleet) -> None:
    hub = fleet.hub
    assert hub.deploy(function("hello", environment={"KEY": "secret"}), all_nodes=True) == {"id": "hello", "nodes": 2}
    assert hub.deploy(function("celsius", memory_mb=64, timeout_seconds=5), node="edge-02") == {"id": "celsius", "nodes": 1}
    wait_until(lambda: serves(hub, "hello", 2) and serves(hub, "celsius", 1))
    assert "secret" not in str(hub.functions())
    assert [entry["id"] for entry in hub.functions(node="edge-01")] == ["hello"]
    for node in fleet.nodes:
        assert hub.invoke("hello", node=node) == b"hello from the edge\n" == fleet.nodes[node].invoke("hello")
    assert hub.invoke("celsius", "date,temp\n2010/01/01 00:00,50.0\n", content_type="text/csv", node="edge-02").endswith(b"10.0\n")
    with pytest.raises(EdgeExecutionError) as failed:
        hub.invoke("celsius", "no csv", node="edge-02")
    assert (failed.value.kind, failed.value.exit_code) == ("execution_failed", 1) and failed.value.stderr_tail
    lines = list(hub.logs("celsius", node="edge-02"))
    assert any(line["stream"] == "stderr" for line in lines), lines
    summary = hub.summary(node="edge-02")
    assert summary["total_invocations"] >= 4 and summary["errors"] == {"execution_failed": 1}, summary
    assert hub.undeploy("hello", node="edge-02") and not hub.undeploy("hello", node="edge-02")
    wait_until(lambda: fleet.nodes["edge-02"].functions("edge-02") == [] or "hello" not in str(fleet.nodes["edge-02"].functions()))
    assert hub.undeploy("celsius", all_nodes=True) and not hub.undeploy("celsius", all_nodes=True)


def test_the_topics_of_a_fleet_are_published_to_and_read_at_its_hub(fleet: Fleet) -> None:
    hub = fleet.hub
    first = hub.publish("site/berlin", "21.5")
    assert hub.publish("site/rome", "30", retain=True) == first + 1
    with contextlib.closing(hub.follow("site/+", from_position=first)) as followed:
        assert [next(followed)["data"], next(followed)["data"]] == ["21.5", "30"]
    read = hub.messages("site/+", from_position=first, limit=1)
    assert (read["messages"][0]["data"], read["next"]) == ("21.5", first + 1)
    assert [message["topic"] for message in hub.messages("site/#")["messages"]] == ["site/berlin", "site/rome"]
    assert [message["data"] for message in hub.retained_messages("site/#")] == ["30"]
    assert [topic["topic"] for topic in hub.topics("site/#")] == ["site/berlin", "site/rome"]


def test_what_is_wrong_with_a_call_is_told_as_everywhere(fleet: Fleet) -> None:
    hub = fleet.hub
    for wrong, why, word in [
        (lambda: hub.invoke("hello", timeout_seconds=0), "timeout_seconds", "invalid_input"),
        (lambda: hub.invoke("absent"), "(?i)function not found", "not_found"),
        (lambda: hub.routes("absent"), "(?i)function not found", "not_found"),
        (lambda: hub.schedule("absent"), "schedule not found", "not_found"),
        (lambda: hub.put_schedule("s", "hello", "0 0 30 2 *"), "never due", "invalid_input"),
        (lambda: hub.put_schedule("s", "hello", "@daily", zone="Mars/Base"), "no time zone `Mars/Base`", "invalid_input"),
        (lambda: hub.put_schedule("s", "hello", "every 30s", jitter_seconds=-1), "`-1`", "invalid_input"),
        (lambda: hub.deploy(function("hello", resilience={"balance": "fastest"}), all_nodes=True), "`fastest`", "invalid_input"),
        (lambda: hub.summary(), "say of which node", "invalid_input"),
        (lambda: hub.dead_letters(), "say of which node", "invalid_input"),
        (lambda: hub.triggers(node="absent"), "(?i)node not found", "not_found"),
        (lambda: hub.retry_dead_letter(7, node="edge-01"), "dead letter not found", "not_found"),
        (lambda: hub.discard_dead_letter(7, node="edge-01"), "dead letter not found", "not_found"),
        (lambda: fleet.nodes["edge-01"].discard_dead_letter(7, node="edge-02"), "this is node `edge-01`", "not_found"),
        (lambda: hub.summary("hello", node="edge-01"), "leave out `function`", "invalid_input"),
        (lambda: fleet.nodes["edge-01"].summary(node="edge-02"), "this is node `edge-01`", "not_found"),
        (lambda: hub.invoke("hello", node="absent"), "(?i)node not found", "not_found"),
        (lambda: hub.invoke("absent", node="edge-01"), "(?i)function not found", "not_found"),
        (lambda: list(hub.logs("absent", node="edge-01")), "(?i)function not found", "not_found"),
        (lambda: hub.deploy(function("hello"), node="absent"), "(?i)node not found", "not_found"),
        (lambda: hub.deploy(function("hello", memory_mb=0), all_nodes=True), "memory_mb", "invalid_input"),
        (lambda: hub.undeploy("hello", node="absent"), "(?i)node not found", "not_found"),
        (lambda: hub.deploy(EdgeFunction("bad", "bad", artifact=b"no component"), all_nodes=True), "refused", "refused_artifact"),
        (lambda: hub.put_document("edgeward.local.functions", {}), "edgeward.", "forbidden"),
    ]:
        with pytest.raises((ValueError, PermissionError), match=why) as caught:
            wrong()
        assert kind(caught) == word, caught.value


def test_a_call_without_a_node_is_routed_and_a_schedule_runs_by_itself(fleet: Fleet) -> None:
    hub, node = fleet.hub, fleet.nodes["edge-01"]
    hub.deploy(function("hello", resilience={"balance": "round_robin"}), all_nodes=True)
    wait_until(lambda: serves(hub, "hello", 2))
    wait_until(lambda: len(hub.routes("hello")[0]["candidates"]) == 2)
    assert [hub.invoke("hello", timeout_seconds=20, idempotent=True) for _ in range(4)] == [b"hello from the edge\n"] * 4
    assert node.invoke("hello") == b"hello from the edge\n"
    [route] = hub.routes("hello")
    assert (route["balance"], [entry["breaker"] for entry in route["candidates"]]) == ("round_robin", ["closed", "closed"])

    put = hub.put_schedule("beat", "hello", "every 1s", to="node=edge-01", payload={"a": 1}, if_generation=0)
    assert (put["when"], put["payload"], put["target"]) == ("every 1s", '{"a": 1}', "node=edge-01")
    wait_until(lambda: hub.schedule("beat")["nodes"] == ["edge-01"])
    wait_until(lambda: [schedule["id"] for schedule in node.schedules()] == ["beat"])
    wait_until(lambda: hub.schedule_history("beat")["totals"]["succeeded"] > 0)
    assert node.schedule_history("beat")["runs"][0]["outcome"] == "succeeded"
    with pytest.raises(PermissionError, match="assigned to this node"):
        node.delete_schedule("beat")
    hub.delete_schedule("beat", if_generation=put["generation"])
    wait_until(lambda: node.schedules() == [])
    node.put_schedule("own", "hello", "@yearly", enabled=False)
    assert node.run_schedule("own")["attempt"] == 1
    wait_until(lambda: asyncio.run(AsyncClient(node.url).schedule_history("own"))["totals"]["succeeded"] == 1)
    node.delete_schedule("own")
    assert hub.undeploy("hello", all_nodes=True)


def test_a_trigger_of_a_fleet_calls_a_function_where_a_message_is_published(fleet: Fleet) -> None:
    hub, node = fleet.hub, fleet.nodes["edge-01"]
    hub.deploy(function("hello"), node="edge-01")
    put = hub.put_trigger("seen", "hello", ["site/+"], to="all")
    assert (put["target"], put["filters"]) == ("all", ["site/+"])
    wait_until(lambda: hub.trigger("seen")["nodes"] == ["edge-01"])
    wait_until(lambda: [trigger["source"] for trigger in node.triggers()] == ["fleet"])
    node.publish("site/berlin", "21.5")
    wait_until(lambda: node.trigger("seen")["delivered"] == 1)
    there = hub.trigger("seen", node="edge-01")
    assert (there["delivered"], there["source"], "nodes" in there) == (1, "fleet", False)
    assert [trigger["id"] for trigger in asyncio.run(AsyncClient(hub.url).triggers(node="edge-01"))] == ["seen"]
    assert hub.triggers(node="edge-02") == [] and hub.dead_letters("seen", node="edge-01") == []
    assert asyncio.run(AsyncClient(hub.url).dead_letters(node="edge-01")) == []
    with pytest.raises(PermissionError, match="assigned to this node"):
        node.delete_trigger("seen")
    with pytest.raises(ValueError, match="is for the hub of a fleet"):
        node.put_trigger("own", "hello", ["site/+"], to="node=edge-02")
    assert hub.delete_trigger("seen") and not hub.delete_trigger("seen")
    wait_until(lambda: node.triggers() == [])
    assert hub.undeploy("hello", node="edge-01")


def test_documents_of_a_fleet_are_the_same_at_the_hub_and_at_its_nodes(fleet: Fleet) -> None:
    hub, (first, second) = fleet.hub, fleet.nodes.values()

    def shows(client: Client, data: dict[str, Any]) -> bool:
        state = client.document("cellar")
        return state is not None and state.data == data and state.verify()

    state = first.put_document("cellar", {"doors": 2, "big": 2**70})
    wait_until(lambda: shows(hub, state.data) and shows(second, state.data))
    known = hub.document("cellar")
    assert known is not None and known.checksum == state.checksum
    hub.patch_document("cellar", {"big": None, "open": True}, if_state=known)
    wait_until(lambda: shows(first, {"doors": 2, "open": True}) and shows(second, {"doors": 2, "open": True}))
    with pytest.raises(ValueError) as caught:
        hub.patch_document("cellar", {"doors": 3}, if_state=known)
    assert kind(caught) == "conflict"
    assert "cellar" in [document["name"] for document in hub.documents()]
    assert hub.conflicts("cellar") == {"conflicts": [], "next": None, "forgotten": 0}


def test_streams_can_be_awaited_and_given_up(fleet: Fleet) -> None:
    hub = AsyncClient(fleet.hub.url)
    seen: list[object] = []

    async def first(stream: AsyncIterator[dict[str, Any]], wanted: str) -> dict[str, Any]:
        async for told in stream:
            if wanted in str(told):
                return told
            if wanted == "nothing":
                seen.append(told)
        raise AssertionError("the stream ended")

    async def main() -> None:
        events = [event async for event in hub.events(limit=1000)]
        assert {"edge-01", "edge-02"} <= {event["node"] for event in events if event["kind"] == "node_joined"}
        coming = asyncio.create_task(first(hub.events(after=events[-1]["id"], follow=True), "function_ready"))
        watching = asyncio.create_task(first(hub.watch_document("streamed"), "'n': 2"))
        await hub.deploy(EdgeFunction("streamed", "streamed", artifact=BUILT / "hello.wasm"), node="edge-01")
        for number in [1, 2]:
            state: SyncState = await hub.put_document("streamed", {"n": number})
            assert state.data == {"n": number}
        assert (await coming)["function"] == "streamed"
        assert (await watching)["data"] == {"n": 2}
        # More of them at once than an executor has threads, and all wait for what does not come.
        silent = [asyncio.create_task(first(hub.watch_document("streamed"), "nothing")) for _ in range(40)]
        while len(seen) < 40:
            await asyncio.sleep(0.01)
        assert await hub.invoke("streamed", node="edge-01")
        for task in silent:
            task.cancel()
        ended = await asyncio.gather(*silent, return_exceptions=True)
        assert [type(end) for end in ended] == [asyncio.CancelledError] * 40

    asyncio.run(asyncio.wait_for(main(), LATE_SECONDS))
    wait_until(lambda: not any(thread.name == "edgeward-stream" for thread in threading.enumerate()))
    stream = fleet.hub.watch_document("streamed")
    assert next(stream)["data"] == {"n": 2}
    stream.close()
    assert list(stream) == []


def moody(mood: str) -> EdgeFunction:
    return function("moody", environment={"MOOD": mood})


def failing(name: str, seconds: int) -> dict[str, Any]:
    return {
        "name": name,
        "before_seconds": 2,
        "duration_seconds": seconds,
        "load": [{"function": "hello", "per_second": 20}],
        "fault": [{"kind": "error", "blast_radius": "100%", "duration_seconds": seconds - 1}],
        "steady_state": [{"probe": "success_rate", "function": "hello", "at_least_percent": 99}],
    }


def test_an_experiment_runs_on_a_hub_and_its_report_is_read(fleet: Fleet) -> None:
    hub = fleet.hub
    hub.deploy(function("hello"), all_nodes=True)
    wait_until(lambda: serves(hub, "hello", 2))
    assert "node-failure" in [scenario["name"] for scenario in hub.scenarios()]
    begun = hub.start_experiment(failing("failing", 3))
    assert (begun["id"], begun["phase"], begun["verdict"]) == ("failing:1", "before", None)
    report = hub.wait_for_experiment("failing:1", 60)
    assert (report["verdict"], report["faults"][0]["nodes"]) == ("broken", ["edge-01", "edge-02"])
    assert hub.experiment_markdown("failing:1").startswith("# Experiment failing: broken")
    with pytest.raises(ValueError, match="there is no function `ghost`"):
        hub.start_experiment(scenario="overload", function_id="ghost")
    with pytest.raises(ValueError, match="experiment not found"):
        hub.experiment("none:1")

    async def stopped() -> dict[str, Any]:
        client = AsyncClient(hub.url)
        begun = await client.start_experiment(failing("endless", 600))
        with pytest.raises(EdgeTimeoutError, match="is not over after"):
            await client.wait_for_experiment(begun["id"], 0.1)
        return await client.stop_experiment(begun["id"])

    assert asyncio.run(stopped())["verdict"] == "aborted"
    assert [experiment["id"] for experiment in hub.experiments()] == ["endless:1", "failing:1"]


def test_a_function_is_rolled_out_and_a_canary_that_fails_goes_back(fleet: Fleet) -> None:
    hub = fleet.hub
    canary = {"kind": "canary", "bake_seconds": 0, "gate": {"probe": {"path": "/"}}}
    plan = hub.put_deployment(moody("well"), "site=berlin", canary, dry_run=True)
    assert (plan["revision"], plan["waves"][0]["nodes"]) == (1, ["edge-01", "edge-02"])
    assert hub.deployments() == [] == hub.rollouts()
    deployment = hub.put_deployment(moody("well"), "site=berlin", canary, if_generation=0)
    assert hub.wait_for_rollout("moody")["state"] == "completed"
    for node in fleet.nodes:
        assert hub.invoke("moody", node=node) == b"well\n"
    hub.put_deployment(moody("errs"), "site=berlin", canary, if_generation=deployment["generation"])
    rollout = hub.wait_for_rollout("moody", 30)
    assert (rollout["state"], rollout["from"], rollout["to"]) == ("rolled_back", 1, 2) and "500" in rollout["reason"]
    for node in fleet.nodes:
        assert hub.invoke("moody", node=node) == b"well\n"
    shown = hub.deployment("moody")
    assert len(shown["revisions"]) == 2 and "errs" not in str(shown)
    difference = hub.diff_deployment("moody", 1, 2)["differences"]
    assert [change["field"] for change in difference] == ["environment.MOOD"] and hub.diff_deployment("moody", 1, 1)["differences"] == []
    for wrong, why, word in [
        (lambda: hub.put_deployment(moody("well"), if_generation=1), "generation", "conflict"),
        (lambda: hub.put_deployment(moody("well"), if_generation=0), "generation", "conflict"),
        (lambda: hub.put_deployment(moody("well"), "berlin"), "which nodes", "invalid_input"),
        (lambda: hub.put_deployment(moody("well"), strategy="sideways"), "sideways", "invalid_input"),
        (lambda: hub.pause_rollout("moody"), "it is rolled back", "conflict"),
        (lambda: hub.rollout("absent"), "rollout not found", "not_found"),
        (lambda: hub.deployment("absent"), "deployment not found", "not_found"),
        (lambda: hub.drain_node("absent"), "(?i)node not found", "not_found"),
        (lambda: fleet.nodes["edge-01"].put_deployment(moody("well")), "nothing is served", "not_found"),
        (lambda: hub.deploy(moody("well"), all_nodes=True), "deployments remove moody", "conflict"),
    ]:
        with pytest.raises(ValueError, match=why) as caught:
            wrong()
        assert kind(caught) == word, caught.value


def test_somebody_decides_about_a_rollout_and_about_nodes(fleet: Fleet) -> None:
    hub = AsyncClient(fleet.hub.url)
    step = {"batch": 1, "bake_seconds": 0, "approve": True}

    async def rolls_out(mood: str) -> dict[str, Any]:
        await hub.put_deployment(moody(mood), "site=berlin", step)
        return await hub.wait_for_rollout("moody", 30)

    async def main() -> None:
        rollout = await rolls_out("glad")
        assert (rollout["state"], rollout["approval"]) == ("in_progress", "awaited")
        assert (await hub.pause_rollout(rollout["id"]))["state"] == "paused" == (await hub.wait_for_rollout("moody", 0))["state"]
        await hub.resume_rollout("moody")
        assert (await hub.approve_rollout("moody"))["approval"] == "given"
        assert (await hub.wait_for_rollout("moody", 30))["state"] == "completed"
        assert await hub.invoke("moody", node="edge-02") == b"glad\n"
        assert (await hub.rollback_rollout("moody", 1))["to"] == 1
        assert (await hub.wait_for_rollout("moody", 30))["state"] == "completed"
        await rolls_out("calm")
        await hub.abort_rollout("moody")
        assert (await hub.wait_for_rollout("moody", 30))["state"] == "rolled_back"
        assert await hub.invoke("moody", node="edge-01") == b"well\n"
        assert [rollout["function"] for rollout in await hub.rollouts()] == ["moody"] * 5
        await hub.put_deployment(moody("slow"), strategy={"batch": 1, "bake_seconds": 60})
        with pytest.raises(EdgeTimeoutError, match="moody"):
            await hub.wait_for_rollout("moody", 0.5)
        assert (await hub.drain_node("edge-01"))["draining"] and not (await hub.undrain_node("edge-01"))["draining"]
        assert "inventory" in (await hub.hold_node("edge-01", "inventory", seconds=3600))["held"]
        assert "inventory" in (await hub.put_deployment(moody("well"), dry_run=True))["pending"]["edge-01"]
        assert (await hub.unhold_node("edge-01"))["held"] is None
        assert await hub.rebalance(1) == []
        await hub.delete_deployment("moody")
        with pytest.raises(ValueError, match="deployment not found"):
            await hub.deployment("moody")
        told = {event["kind"] async for event in hub.events(limit=1000)}
        assert {"deployment_changed", "rollout_changed", "node_duties"} <= told

    asyncio.run(asyncio.wait_for(main(), 2 * LATE_SECONDS))
    wait_until(lambda: "moody" not in str(fleet.hub.functions()))


# The last, as its node does not come back.
def test_a_node_that_is_away_is_told_as_unavailable_and_can_be_removed(fleet: Fleet) -> None:
    hub = fleet.hub
    fleet.stop("edge-02")
    wait_until(lambda: [node["id"] for node in hub.nodes(EdgeNodeStatus.OFFLINE)] == ["edge-02"])
    assert hub.deploy(function("hello"), all_nodes=True) == {"id": "hello", "nodes": 2}
    with pytest.raises(ConnectionError) as caught:
        hub.invoke("hello", node="edge-02")
    assert kind(caught) == "unavailable"
    hub.remove_node("edge-02")
    assert [node["id"] for node in hub.nodes()] == ["edge-01"]
    with pytest.raises(ValueError, match="(?i)node not found"):
        hub.remove_node("edge-02")
