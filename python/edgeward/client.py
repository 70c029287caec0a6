"""A client of the HTTP API of a running node (`edgeward up`) or hub (`edgeward hub`).

Answers are what the API's JSON says, with states of documents as `SyncState`. Each call has a connection of its own, and every wait has a
bound. A token is shown over TLS only.
"""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Union
from urllib.parse import quote

from edgeward._api import JSON, Api, Events
from edgeward._edgeward import EdgeFunction, SyncState
from edgeward._errors import EdgeTimeoutError, of_kind

Payload = Union[bytes, bytearray, str]

_MERGE_PATCH = "application/merge-patch+json"
# States of a rollout that has ended, and the time between two looks at one.
_OVER = ("completed", "rolled_back", "failed")
_LOOK_EVERY_SECONDS = 0.2


class Client:
    """Talks to one node or hub. Thread-safe. `node` says which node of a hub a call is about, and is left out on a node itself."""

    def __init__(
        self, url: str, token: str | None = None, *, ca_file: str | os.PathLike[str] | None = None, timeout_seconds: float = 60
    ) -> None:
        """`url` is `http://HOST:PORT` or `https://HOST:PORT`; `ca_file` holds the certificates that are trusted in place of the system's.

        No wait for an answer takes longer than `timeout_seconds`; what a stream tells next may take longer, if that is 20 or more."""
        self._api = Api(url, token, ca_file, timeout_seconds)

    @property
    def url(self) -> str:
        """The address."""
        return self._api.url

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def status(self) -> dict[str, Any]:
        """The node or hub and its process."""
        return self._api.object("GET", "/v1/status")

    def summary(self, function_id: str | None = None, node: str | None = None) -> dict[str, Any]:
        """What ran so far: totals, success rate in percent, durations in milliseconds, errors by kind.

        A node tells one function apart, a hub does not."""
        return self._api.object("GET", "/v1/metrics/summary", {"function": function_id, "node": node})

    def metrics(self) -> str:
        """Everything that the node or hub measures, in the text format of Prometheus."""
        return self._api.send("GET", "/metrics").decode()

    def nodes(self, status: object = None) -> list[dict[str, Any]]:
        """The nodes of a hub, or those of one `EdgeNodeStatus`."""
        return self._api.objects("nodes", "/v1/nodes", {"status": getattr(status, "value", status)})

    def node(self, node_id: str) -> dict[str, Any]:
        """One node of a hub."""
        return self._api.object("GET", f"/v1/nodes/{_part(node_id)}")

    def label_node(self, node_id: str, labels: dict[str, str | None]) -> dict[str, Any]:
        """Sets labels of a node of a hub; None removes one."""
        return self._change_node(node_id, {"labels": labels})

    def join_token(self, node_id: str | None = None, *, expires_in_seconds: int | None = None) -> dict[str, Any]:
        """Makes a token by which one node joins the fleet of a hub, once: `token`, `servers`, `expires_at`. With an id, only that node."""
        wanted = {name: value for name, value in (("node", node_id), ("expires_in_seconds", expires_in_seconds)) if value is not None}
        return self._api.object("POST", "/v1/join-tokens", body=_dumps(wanted), content_type=JSON)

    def remove_node(self, node_id: str) -> None:
        """Removes a node from the fleet of a hub."""
        self._api.send("DELETE", f"/v1/nodes/{_part(node_id)}")

    def functions(self, node: str | None = None) -> list[dict[str, Any]]:
        """The functions, with what became of each."""
        return self._api.objects("functions", "/v1/functions", {"node": node})

    def deploy(
        self,
        function: EdgeFunction,
        *,
        node: str | None = None,
        all_nodes: bool = False,
        signature: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Uploads the artifact of a function and deploys it: on the node itself, or from a hub on one node or on all.

        `signature` is what `edgeward sign` wrote, read from JSON; nodes that run signed artifacts only demand one.
        """
        description = self._described(function, signature)
        query = {"node": node, "all": all_nodes or None}
        return self._api.object("PUT", f"/v1/functions/{_part(function.id)}", query, body=_dumps(description), content_type=JSON)

    def _described(self, function: EdgeFunction, signature: dict[str, Any] | None) -> dict[str, Any]:
        """A function as the API takes it, with its artifact uploaded."""
        if function.artifact is None:
            raise TypeError(f"function `{function.id}` has a handler of this process; only an artifact can be deployed elsewhere")
        artifact = function.artifact if isinstance(function.artifact, bytes) else Path(function.artifact).read_bytes()
        digest = self._api.object("POST", "/v1/artifacts", body=artifact, content_type="application/wasm")["digest"]
        grants = [
            {"document": grant.removesuffix(":ro"), "access": "read-only" if grant.endswith(":ro") else "read-write"}
            for grant in function.documents
        ]
        description = {
            "name": function.name,
            "handler": {"artifact": digest},
            "memory_mb": function.memory_mb,
            "timeout_seconds": function.timeout_seconds,
            "environment": function.environment,
            "allowed_hosts": function.allowed_hosts,
            "documents": grants,
            "max_concurrency": function.max_concurrency,
            "max_queue": function.max_queue,
            "max_reuse": function.max_reuse,
            "resilience": function.resilience,
        }
        if signature is not None:
            description["signature"] = {name: signature[name] for name in ("key", "counter", "signature")}
        return description

    def undeploy(self, function_id: str, *, node: str | None = None, all_nodes: bool = False) -> bool:
        """Takes a function from the node itself, or from one node or all of a hub; says whether it was there."""
        try:
            self._api.send("DELETE", f"/v1/functions/{_part(function_id)}", {"node": node, "all": all_nodes or None})
        except ValueError as error:
            if getattr(error, "kind", None) == "not_found" and str(error).lower().startswith("function not found"):
                return False
            raise
        return True

    def invoke(
        self,
        function_id: str,
        payload: Payload = b"",
        *,
        content_type: str | None = None,
        node: str | None = None,
        timeout_seconds: float | None = None,
        idempotent: bool = False,
    ) -> bytes:
        """Invokes a function with a payload and returns its answer: on the node that takes the call best, or on one `node` and no other.

        `timeout_seconds` is how long the call may take with all its attempts; an `idempotent` one may run twice with no harm, and is tried
        again also when it may have run."""
        body = payload.encode() if isinstance(payload, str) else bytes(payload)
        kind = content_type or "application/octet-stream"
        terms = {"edgeward-idempotent": "true"} if idempotent else {}
        if timeout_seconds is not None:
            terms["edgeward-timeout-ms"] = _millis(timeout_seconds)
        path = f"/v1/functions/{_part(function_id)}/invoke"
        return self._api.send("POST", path, {"node": node}, body, kind, terms=terms)

    def routes(self, function_id: str | None = None) -> list[dict[str, Any]]:
        """How a hub routes the calls of each function, or of one: its nodes in the order in which they are asked, and how they do."""
        return self._api.objects("routes", "/v1/routes", {"function": function_id})

    def schedules(self) -> list[dict[str, Any]]:
        """What runs by itself: of a node with how it went, of a hub with the nodes that have it."""
        return self._api.objects("schedules", "/v1/schedules")

    def schedule(self, schedule_id: str) -> dict[str, Any]:
        """One schedule."""
        return self._api.object("GET", _schedule(schedule_id))

    def put_schedule(
        self,
        schedule_id: str,
        function_id: str,
        when: str,
        *,
        zone: str | None = None,
        to: str | None = None,
        payload: object = None,
        content_type: str | None = None,
        catch_up: str | None = None,
        jitter_seconds: int | None = None,
        attempts: int | None = None,
        timeout_seconds: float | None = None,
        enabled: bool = True,
        starts_at: str | None = None,
        ends_at: str | None = None,
        if_generation: int | None = None,
    ) -> dict[str, Any]:
        """Has a function run by itself, in place of an earlier schedule of this id, with `if_generation` only of this one, 0 for none.

        `when` is `every 30s`, `at 2026-12-24T18:00:00Z`, or a cron expression such as `30 2 * * MON-FRI`, which means the local time of
        `zone` (UTC). `to` is for a hub: `all`, `node=ID`, `site=berlin`, `count=2`, or `one` for any one node. A `payload` that is no `str`
        is written as JSON. `catch_up` says what becomes of times at which the node could not: `skip`, `once` or `all=5`."""
        text = payload if payload is None or isinstance(payload, str) else json.dumps(payload, allow_nan=False)
        wanted = {
            "function": function_id,
            "when": when,
            "zone": zone,
            "target": to,
            "payload": text,
            "content_type": content_type,
            "catch_up": catch_up,
            "jitter_seconds": jitter_seconds,
            "attempts": attempts,
            "timeout_seconds": timeout_seconds,
            "enabled": enabled,
            "starts_at": starts_at,
            "ends_at": ends_at,
        }
        body = _dumps({name: value for name, value in wanted.items() if value is not None})
        return self._api.object("PUT", _schedule(schedule_id), body=body, content_type=JSON, if_generation=if_generation)

    def delete_schedule(self, schedule_id: str, *, if_generation: int | None = None) -> None:
        """Removes a schedule and its history; with `if_generation`, only this one."""
        self._api.send("DELETE", _schedule(schedule_id), if_generation=if_generation)

    def run_schedule(self, schedule_id: str, *, node: str | None = None) -> dict[str, Any]:
        """Starts a run of a schedule now, beside its times, and returns before it ends: `due_at`, `attempt`, `started_at`."""
        return self._api.object("POST", _schedule(schedule_id) + "/run", {"node": node})

    def schedule_history(self, schedule_id: str, *, node: str | None = None) -> dict[str, Any]:
        """What ran of a schedule and what did not, as `runs`, newest first, and `totals` by outcome."""
        return self._api.object("GET", _schedule(schedule_id) + "/history", {"node": node})

    def logs(self, function_id: str, *, node: str | None = None, follow: bool = False) -> Events:
        """The lines that a function printed: those that are kept, and with `follow` those that come."""
        return self._api.events(f"/v1/functions/{_part(function_id)}/logs", {"node": node, "follow": follow or None})

    def events(
        self, *, node: str | None = None, after: str | None = None, limit: int | None = None, follow: bool = False
    ) -> Events:
        """The events of a fleet: the last ones, and with `follow` those that come."""
        return self._api.events("/v1/events", {"node": node, "after": after, "limit": limit, "follow": follow or None}, only="message")

    def deployments(self) -> list[dict[str, Any]]:
        """What a hub deploys by target and strategy, by function."""
        return self._api.objects("deployments", "/v1/deployments")

    def deployment(self, function_id: str) -> dict[str, Any]:
        """One deployment of a hub, with the revisions that are kept."""
        return self._api.object("GET", _deployment(function_id))

    def put_deployment(
        self,
        function: EdgeFunction,
        to: str = "all",
        strategy: str | dict[str, Any] | None = None,
        *,
        if_generation: int | None = None,
        dry_run: bool = False,
        signature: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Uploads the artifact of a function and has a hub deploy it to the nodes of a target, by a strategy: in place of an earlier
        deployment of it, with `if_generation` only of this one, 0 for none. Returns the deployment, or with `dry_run` the plan.

        `to` is `all`, `node=ID,node=ID`, labels and capabilities as `site=berlin,capability=gpu`, or with a number of nodes that the hub
        chooses, `count=2,site=berlin`; `one,site=berlin` is one node at a time under a lease. `strategy` is `rolling`, `canary` or `blue-green`, or a dictionary with such a `kind` and more."""
        how = {"kind": strategy} if isinstance(strategy, str) else strategy or {}
        body = _dumps({"function": self._described(function, signature), "target": to, "strategy": how})
        query = {"dry_run": dry_run or None}
        return self._api.object("PUT", _deployment(function.id), query, body=body, content_type=JSON, if_generation=if_generation)

    def delete_deployment(self, function_id: str) -> None:
        """Removes a deployment of a hub: its function is taken from every node."""
        self._api.send("DELETE", _deployment(function_id))

    def diff_deployment(self, function_id: str, from_revision: int | None = None, to_revision: int | None = None) -> dict[str, Any]:
        """In what two revisions of a function differ: `from`, `to` and `differences`. Without numbers, the one that is wanted and the one
        before it."""
        return self._api.object("GET", _deployment(function_id) + "/diff", {"from": from_revision, "to": to_revision})

    def rollouts(self) -> list[dict[str, Any]]:
        """The rollouts that a hub keeps, the newest of each function first."""
        return self._api.objects("rollouts", "/v1/rollouts")

    def rollout(self, rollout_id: str) -> dict[str, Any]:
        """One rollout with its nodes wave by wave, by its id, or by its function, of which it is then the present one."""
        return self._api.object("GET", f"/v1/rollouts/{_part(rollout_id)}")

    def pause_rollout(self, rollout_id: str) -> dict[str, Any]:
        """Lets no further node get the revision of a rollout; what runs is still judged."""
        return self._act(rollout_id, "pause")

    def resume_rollout(self, rollout_id: str) -> dict[str, Any]:
        """Lets a paused rollout go on."""
        return self._act(rollout_id, "resume")

    def approve_rollout(self, rollout_id: str) -> dict[str, Any]:
        """Agrees to what a rollout waits for."""
        return self._act(rollout_id, "approve")

    def abort_rollout(self, rollout_id: str) -> dict[str, Any]:
        """Ends a rollout, and brings the former revision back."""
        return self._act(rollout_id, "abort")

    def rollback_rollout(self, rollout_id: str, revision: int | None = None) -> dict[str, Any]:
        """Goes back to the revision before, or to one that is kept, on all nodes at once; returns the rollout that does so."""
        return self._act(rollout_id, "rollback", {"revision": revision})

    def _act(self, rollout_id: str, action: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._api.object("POST", f"/v1/rollouts/{_part(rollout_id)}/{action}", query)

    def wait_for_rollout(self, function_id: str, timeout_seconds: float = 600) -> dict[str, Any]:
        """Waits until the rollout of what is wanted of a function now has ended, is paused or awaits approval; returns it. When that takes
        longer, it raises EdgeTimeoutError."""
        deadline = time.monotonic() + timeout_seconds
        while (rollout := self._settled(function_id, deadline, timeout_seconds)) is None:
            time.sleep(_LOOK_EVERY_SECONDS)
        return rollout

    def _settled(self, function_id: str, deadline: float, timeout_seconds: float) -> dict[str, Any] | None:
        deployment = self.deployment(function_id)
        state, phase, approval = (deployment["rollout"][name] for name in ("state", "phase", "approval"))
        needs_somebody = state == "paused" or (approval == "awaited" and phase != "restoring")
        if deployment["observed_generation"] >= deployment["generation"] and (state in _OVER or needs_somebody):
            return self.rollout(function_id)
        if time.monotonic() >= deadline:
            why = f"the rollout of function `{function_id}` is {state.replace('_', ' ')} after {timeout_seconds:g} s"
            raise EdgeTimeoutError(why)
        return None

    def drain_node(self, node_id: str) -> dict[str, Any]:
        """Has functions with a number of nodes leave a node of a hub: first there, then gone here."""
        return self._change_node(node_id, {"draining": True})

    def undrain_node(self, node_id: str) -> dict[str, Any]:
        """Lets them come again."""
        return self._change_node(node_id, {"draining": False})

    def hold_node(self, node_id: str, reason: str = "", *, seconds: int | None = None) -> dict[str, Any]:
        """Lets a node of a hub get no updates, for so long or until `unhold_node`; what it runs goes on."""
        return self._change_node(node_id, {"hold": {"held": True, "reason": reason, "seconds": seconds}})

    def unhold_node(self, node_id: str) -> dict[str, Any]:
        """Lets a node get updates again."""
        return self._change_node(node_id, {"hold": {"held": False}})

    def _change_node(self, node_id: str, change: dict[str, Any]) -> dict[str, Any]:
        return self._api.object("PATCH", f"/v1/nodes/{_part(node_id)}", body=_dumps(change), content_type=JSON)

    def rebalance(self, moves_max: int | None = None) -> list[dict[str, Any]]:
        """Moves functions with a number of nodes from nodes of a hub with many functions to nodes with few, at most so many (100); returns
        the moves."""
        moves: list[dict[str, Any]] = self._api.object("POST", "/v1/rebalance", {"moves": moves_max})["moves"]
        return moves

    def scenarios(self) -> list[dict[str, Any]]:
        """The ready-made experiments of chaos engineering, each with its `name`, `description` and the text of its file."""
        return self._api.objects("scenarios", "/v1/chaos/scenarios")

    def start_experiment(
        self,
        experiment: str | dict[str, Any] | None = None,
        *,
        scenario: str | None = None,
        function_id: str | None = None,
        document: str | None = None,
    ) -> dict[str, Any]:
        """Begins an experiment of a hub, which then runs to its end by itself: the text of its file, a dictionary, or a ready-made one by its
        name, with the function that it calls and the document that it compares. The hub, and each node that may be hit, must allow it."""
        body, content_type = None, None
        if isinstance(experiment, str):
            body, content_type = experiment.encode(), "application/toml"
        elif experiment is not None:
            body, content_type = _dumps(experiment), JSON
        query = {"scenario": scenario, "function": function_id, "document": document}
        return self._api.object("POST", "/v1/chaos/experiments", query, body=body, content_type=content_type)

    def experiments(self) -> list[dict[str, Any]]:
        """The experiments that a hub runs or ran, the newest first."""
        return self._api.objects("experiments", "/v1/chaos/experiments")

    def experiment(self, experiment_id: str) -> dict[str, Any]:
        """One experiment of a hub, as it is now."""
        return self._api.object("GET", _experiment(experiment_id))

    def experiment_report(self, experiment_id: str) -> dict[str, Any]:
        """The report of an experiment; of one that runs, up to now."""
        return self._api.object("GET", _experiment(experiment_id) + "/report")

    def experiment_markdown(self, experiment_id: str) -> str:
        """The same as Markdown, with a chart."""
        return self._api.send("GET", _experiment(experiment_id) + "/report", {"format": "markdown"}).decode()

    def stop_experiment(self, experiment_id: str) -> dict[str, Any]:
        """Ends an experiment before its time, and returns it once its faults have ended."""
        return self._api.object("POST", _experiment(experiment_id) + "/stop")

    def wait_for_experiment(self, experiment_id: str, timeout_seconds: float = 10_800) -> dict[str, Any]:
        """Waits until an experiment is over; returns its report. When that takes longer, it raises EdgeTimeoutError."""
        deadline = time.monotonic() + timeout_seconds
        while not self._is_over(experiment_id, deadline, timeout_seconds):
            time.sleep(_LOOK_EVERY_SECONDS)
        return self.experiment_report(experiment_id)

    def _is_over(self, experiment_id: str, deadline: float, timeout_seconds: float) -> bool:
        if self.experiment(experiment_id)["phase"] == "ended":
            return True
        if time.monotonic() >= deadline:
            raise EdgeTimeoutError(f"experiment `{experiment_id}` is not over after {timeout_seconds:g} s")
        return False

    def documents(self) -> list[dict[str, Any]]:
        """The documents, without their data."""
        return self._api.objects("documents", "/v1/documents")

    def document(self, name: str) -> SyncState | None:
        """A document, whole, or None when there is none."""
        try:
            return _state(self._api.object("GET", _document(name)))
        except ValueError as error:
            if getattr(error, "kind", None) == "not_found":
                return None
            raise

    def put_document(self, name: str, data: dict[str, Any], *, if_state: SyncState | None = None) -> SyncState:
        """Makes `data` the whole document; with `if_state`, only when the document is in that state."""
        return _state(self._api.object("PUT", _document(name), body=_dumps(data), content_type=JSON, if_state=if_state))

    def patch_document(self, name: str, patch: dict[str, Any], *, if_state: SyncState | None = None) -> SyncState:
        """Changes a document by a JSON merge patch (RFC 7396): None deletes a key."""
        return _state(self._api.object("PATCH", _document(name), body=_dumps(patch), content_type=_MERGE_PATCH, if_state=if_state))

    def delete_document(self, name: str, *, if_state: SyncState | None = None) -> None:
        """Deletes every key of a document."""
        self._api.send("DELETE", _document(name), if_state=if_state)

    def pending_changes(self, name: str) -> list[dict[str, Any]]:
        """The changes of a document that are not confirmed, oldest first."""
        return _changes(self._api.objects("pending", _document(name) + "/pending"))

    def history(self, name: str) -> list[dict[str, Any]]:
        """The changes of a document that are kept, oldest first."""
        return _changes(self._api.objects("history", _document(name) + "/history"))

    def confirm(self, name: str, up_to_version: int) -> None:
        """Confirms the pending changes of a document up to a version."""
        self._api.send("POST", _document(name) + "/confirm", body=_dumps({"up_to_version": up_to_version}), content_type=JSON)

    def conflicts(self, name: str, *, limit: int | None = None, after: str | None = None) -> dict[str, Any]:
        """The conflicts of a document that nobody has resolved, in pages: `conflicts`, and `next` for the page after."""
        return self._api.object("GET", _document(name) + "/conflicts", {"limit": limit, "after": after})

    def resolve(self, name: str, conflict_id: str, resolution: dict[str, Any]) -> None:
        """Resolves a conflict as the API's `resolve` says."""
        path = f"{_document(name)}/conflicts/{_part(conflict_id)}/resolve"
        self._api.send("POST", path, body=_dumps(resolution), content_type=JSON)

    def watch_document(self, name: str) -> Events:
        """The states of a document as they come, the one of now first; of a very large one only its version."""
        return self._api.events(_document(name) + "/watch", {})

    def publish(
        self,
        topic: str,
        payload: Payload = b"",
        *,
        content_type: str | None = None,
        key: str | None = None,
        retain: bool = False,
        expires_in_seconds: int | None = None,
    ) -> int:
        """Publishes a message on a node or to a fleet; returns its position when it is on the disk.

        Messages of one `key` come in their order; with `retain`, who follows the topic later gets it first. A payload of the type
        `application/cloudevents+json` is published as the CloudEvent that it is."""
        body = payload.encode() if isinstance(payload, str) else bytes(payload)
        query = {"key": key, "retain": retain or None, "expires_in_seconds": expires_in_seconds}
        position: int = self._api.object("POST", f"/v1/topics/{_part(topic)}", query, body=body, content_type=content_type)["position"]
        return position

    def follow(self, filter: str, *, from_position: int | None = None) -> Events:
        """The messages of a filter, such as `site/+/temp`, as they come: from a position on, 1 for the oldest, or from now on.

        After a lost connection, go on with the `position` of the last one and 1 more."""
        return self._api.events(_filter(filter, "events"), {"from": from_position}, only="message")

    def messages(
        self, filter: str, *, limit: int | None = None, before: int | None = None, from_position: int | None = None
    ) -> dict[str, Any]:
        """The newest messages of a filter, in pages: `messages`, the oldest first, and `before` for the page of older ones.

        With `from_position` those from there on, 1 for the oldest: `next` is where the next page begins, and there may be more as long as
        it grows; `lost` are those that are gone from there."""
        query = {"limit": limit, "before": before, "from": from_position}
        return self._api.object("GET", _filter(filter, "messages"), query)

    def retained_messages(self, filter: str = "#", *, after: str | None = None) -> list[dict[str, Any]]:
        """The retained messages of a filter whose topics come after `after`, a page of them; the last page is empty."""
        return self._api.objects("messages", _filter(filter, "retained"), {"after": after})

    def topics(self, filter: str = "#", *, after: str | None = None) -> list[dict[str, Any]]:
        """The topics that have messages, up to 1000 whose names come after `after`."""
        return self._api.objects("topics", "/v1/topics", {"filter": filter, "after": after})

    def dead_letters(
        self, trigger_id: str | None = None, *, after: int | None = None, node: str | None = None
    ) -> list[dict[str, Any]]:
        """Messages that functions could not handle, of one trigger or of all, after an id, a page of them; the last page is empty."""
        return self._api.objects("dead_letters", "/v1/dead-letters", {"trigger": trigger_id, "after": after, "node": node})

    def retry_dead_letter(self, letter_id: int, *, node: str | None = None) -> None:
        """Has a message tried again by its trigger, from the first attempt on."""
        self._api.send("POST", f"/v1/dead-letters/{letter_id}/retry", {"node": node})

    def discard_dead_letter(self, letter_id: int, *, node: str | None = None) -> None:
        """Removes a message that was given up."""
        self._api.send("DELETE", f"/v1/dead-letters/{letter_id}", {"node": node})

    def triggers(self, *, node: str | None = None) -> list[dict[str, Any]]:
        """The triggers: of a node with how each does, of a hub with the nodes that have it."""
        return self._api.objects("triggers", "/v1/triggers", {"node": node})

    def trigger(self, trigger_id: str, *, node: str | None = None) -> dict[str, Any]:
        """One trigger."""
        return self._api.object("GET", f"/v1/triggers/{_part(trigger_id)}", {"node": node})

    def put_trigger(
        self,
        trigger_id: str,
        function_id: str,
        filters: list[str],
        *,
        mode: str = "binary",
        concurrency: int | None = None,
        retry: dict[str, int] | None = None,
        to: str | None = None,
    ) -> dict[str, Any]:
        """Has a function called for each message of some filters, at least once; a changed trigger goes on where it was.

        `mode` is `binary`, with the payload as the body, or `structured`, with one JSON object; `retry` has `attempts`, `pause_min_ms` and
        `pause_max_ms`. `to` is for a hub, which puts the trigger on those nodes of this target that are to have the function: `all`,
        `node=ID`, `site=berlin`, or `one` for any one of them."""
        wanted = {
            "function": function_id,
            "filters": filters,
            "mode": mode,
            "concurrency": concurrency,
            "retry": retry,
            "target": to,
        }
        body = _dumps({name: value for name, value in wanted.items() if value is not None})
        return self._api.object("PUT", f"/v1/triggers/{_part(trigger_id)}", body=body, content_type=JSON)

    def delete_trigger(self, trigger_id: str) -> bool:
        """Removes a trigger, and how far it got; says whether it was there. Its dead letters stay."""
        try:
            self._api.send("DELETE", f"/v1/triggers/{_part(trigger_id)}")
        except ValueError as error:
            if getattr(error, "kind", None) == "not_found" and str(error).startswith("trigger not found"):
                return False
            raise
        return True


def _part(text: str) -> str:
    return quote(text, safe="")


def _deployment(function_id: str) -> str:
    return f"/v1/deployments/{_part(function_id)}"


def _experiment(experiment_id: str) -> str:
    return f"/v1/chaos/experiments/{_part(experiment_id)}"


def _filter(filter: str, what: str) -> str:
    return f"/v1/topics/{_part(filter)}/{what}"


def _schedule(schedule_id: str) -> str:
    return f"/v1/schedules/{_part(schedule_id)}"


def _millis(seconds: float) -> str:
    # Also of NaN this is false.
    if not 0.001 <= seconds <= 1_000_000:
        why = f"`timeout_seconds` is {seconds}; it must be from 0.001 to 1000000"
        raise of_kind("invalid_input", ValueError(why))
    return str(int(seconds * 1000))


def _document(name: str) -> str:
    return f"/v1/documents/{_part(name)}"


def _dumps(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def _local(text: str) -> datetime:
    # Python 3.10 reads neither `Z` nor nanoseconds.
    moment, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{moment}.{fraction[:6].ljust(6, '0')}+00:00").astimezone().replace(tzinfo=None)


def _state(answer: dict[str, Any]) -> SyncState:
    return SyncState(answer["version"], answer["data"], answer["checksum"], _local(answer["updated_at"]))


def _changes(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [change | {"timestamp": _local(change["timestamp"])} for change in changes]
