"""The client of the HTTP API for `asyncio`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from edgeward._asyncio import stream
from edgeward._edgeward import EdgeFunction, SyncState
from edgeward.client import _LOOK_EVERY_SECONDS, Client, Payload


class AsyncClient:
    """`Client` for `asyncio`: a call waits on a thread of the loop's executor, and a stream on one of its own."""

    def __init__(
        self, url: str, token: str | None = None, *, ca_file: str | os.PathLike[str] | None = None, timeout_seconds: float = 60
    ) -> None:
        self._client = Client(url, token, ca_file=ca_file, timeout_seconds=timeout_seconds)

    @property
    def url(self) -> str:
        """The address."""
        return self._client.url

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def status(self) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.status)

    async def summary(self, function_id: str | None = None, node: str | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.summary, function_id, node)

    async def metrics(self) -> str:
        return await asyncio.to_thread(self._client.metrics)

    async def nodes(self, status: object = None) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.nodes, status)

    async def node(self, node_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.node, node_id)

    async def label_node(self, node_id: str, labels: dict[str, str | None]) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.label_node, node_id, labels)

    async def join_token(self, node_id: str | None = None, *, expires_in_seconds: int | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.join_token, node_id, expires_in_seconds=expires_in_seconds)

    async def remove_node(self, node_id: str) -> None:
        await asyncio.to_thread(self._client.remove_node, node_id)

    async def functions(self, node: str | None = None) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.functions, node)

    async def deploy(self, function: EdgeFunction, *, node: str | None = None, all_nodes: bool = False) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.deploy, function, node=node, all_nodes=all_nodes)

    async def undeploy(self, function_id: str, *, node: str | None = None, all_nodes: bool = False) -> bool:
        return await asyncio.to_thread(self._client.undeploy, function_id, node=node, all_nodes=all_nodes)

    async def invoke(
        self,
        function_id: str,
        payload: Payload = b"",
        *,
        content_type: str | None = None,
        node: str | None = None,
        timeout_seconds: float | None = None,
        idempotent: bool = False,
    ) -> bytes:
        how: dict[str, Any] = {"timeout_seconds": timeout_seconds, "idempotent": idempotent}
        return await asyncio.to_thread(self._client.invoke, function_id, payload, content_type=content_type, node=node, **how)

    async def routes(self, function_id: str | None = None) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.routes, function_id)

    async def schedules(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.schedules)

    async def schedule(self, schedule_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.schedule, schedule_id)

    async def put_schedule(
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
        how: dict[str, Any] = {
            "zone": zone,
            "to": to,
            "payload": payload,
            "content_type": content_type,
            "catch_up": catch_up,
            "jitter_seconds": jitter_seconds,
            "attempts": attempts,
            "timeout_seconds": timeout_seconds,
            "enabled": enabled,
            "starts_at": starts_at,
            "ends_at": ends_at,
            "if_generation": if_generation,
        }
        return await asyncio.to_thread(self._client.put_schedule, schedule_id, function_id, when, **how)

    async def delete_schedule(self, schedule_id: str, *, if_generation: int | None = None) -> None:
        await asyncio.to_thread(self._client.delete_schedule, schedule_id, if_generation=if_generation)

    async def run_schedule(self, schedule_id: str, *, node: str | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.run_schedule, schedule_id, node=node)

    async def schedule_history(self, schedule_id: str, *, node: str | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.schedule_history, schedule_id, node=node)

    def logs(self, function_id: str, *, node: str | None = None, follow: bool = False) -> AsyncIterator[dict[str, Any]]:
        return stream(lambda: self._client.logs(function_id, node=node, follow=follow))

    def events(
        self, *, node: str | None = None, after: str | None = None, limit: int | None = None, follow: bool = False
    ) -> AsyncIterator[dict[str, Any]]:
        return stream(lambda: self._client.events(node=node, after=after, limit=limit, follow=follow))

    async def deployments(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.deployments)

    async def deployment(self, function_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.deployment, function_id)

    async def put_deployment(
        self,
        function: EdgeFunction,
        to: str = "all",
        strategy: str | dict[str, Any] | None = None,
        *,
        if_generation: int | None = None,
        dry_run: bool = False,
        signature: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        options: dict[str, Any] = {"if_generation": if_generation, "dry_run": dry_run, "signature": signature}
        return await asyncio.to_thread(self._client.put_deployment, function, to, strategy, **options)

    async def delete_deployment(self, function_id: str) -> None:
        await asyncio.to_thread(self._client.delete_deployment, function_id)

    async def diff_deployment(self, function_id: str, from_revision: int | None = None, to_revision: int | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.diff_deployment, function_id, from_revision, to_revision)

    async def rollouts(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.rollouts)

    async def rollout(self, rollout_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.rollout, rollout_id)

    async def pause_rollout(self, rollout_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.pause_rollout, rollout_id)

    async def resume_rollout(self, rollout_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.resume_rollout, rollout_id)

    async def approve_rollout(self, rollout_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.approve_rollout, rollout_id)

    async def abort_rollout(self, rollout_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.abort_rollout, rollout_id)

    async def rollback_rollout(self, rollout_id: str, revision: int | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.rollback_rollout, rollout_id, revision)

    async def wait_for_rollout(self, function_id: str, timeout_seconds: float = 600) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_seconds
        # Between two looks it holds no thread of the executor.
        while (rollout := await asyncio.to_thread(self._client._settled, function_id, deadline, timeout_seconds)) is None:
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        return rollout

    async def drain_node(self, node_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.drain_node, node_id)

    async def undrain_node(self, node_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.undrain_node, node_id)

    async def hold_node(self, node_id: str, reason: str = "", *, seconds: int | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.hold_node, node_id, reason, seconds=seconds)

    async def unhold_node(self, node_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.unhold_node, node_id)

    async def rebalance(self, moves_max: int | None = None) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.rebalance, moves_max)

    async def scenarios(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.scenarios)

    async def start_experiment(
        self,
        experiment: str | dict[str, Any] | None = None,
        *,
        scenario: str | None = None,
        function_id: str | None = None,
        document: str | None = None,
    ) -> dict[str, Any]:
        options = {"scenario": scenario, "function_id": function_id, "document": document}
        return await asyncio.to_thread(self._client.start_experiment, experiment, **options)

    async def experiments(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.experiments)

    async def experiment(self, experiment_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.experiment, experiment_id)

    async def experiment_report(self, experiment_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.experiment_report, experiment_id)

    async def experiment_markdown(self, experiment_id: str) -> str:
        return await asyncio.to_thread(self._client.experiment_markdown, experiment_id)

    async def stop_experiment(self, experiment_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.stop_experiment, experiment_id)

    async def wait_for_experiment(self, experiment_id: str, timeout_seconds: float = 10_800) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_seconds
        # Between two looks it holds no thread of the executor.
        while not await asyncio.to_thread(self._client._is_over, experiment_id, deadline, timeout_seconds):
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        return await self.experiment_report(experiment_id)

    async def documents(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.documents)

    async def document(self, name: str) -> SyncState | None:
        return await asyncio.to_thread(self._client.document, name)

    async def put_document(self, name: str, data: dict[str, Any], *, if_state: SyncState | None = None) -> SyncState:
        return await asyncio.to_thread(self._client.put_document, name, data, if_state=if_state)

    async def patch_document(self, name: str, patch: dict[str, Any], *, if_state: SyncState | None = None) -> SyncState:
        return await asyncio.to_thread(self._client.patch_document, name, patch, if_state=if_state)

    async def delete_document(self, name: str, *, if_state: SyncState | None = None) -> None:
        await asyncio.to_thread(self._client.delete_document, name, if_state=if_state)

    async def pending_changes(self, name: str) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.pending_changes, name)

    async def history(self, name: str) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.history, name)

    async def confirm(self, name: str, up_to_version: int) -> None:
        await asyncio.to_thread(self._client.confirm, name, up_to_version)

    async def conflicts(self, name: str, *, limit: int | None = None, after: str | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.conflicts, name, limit=limit, after=after)

    async def resolve(self, name: str, conflict_id: str, resolution: dict[str, Any]) -> None:
        await asyncio.to_thread(self._client.resolve, name, conflict_id, resolution)

    def watch_document(self, name: str) -> AsyncIterator[dict[str, Any]]:
        return stream(lambda: self._client.watch_document(name))

    async def publish(
        self,
        topic: str,
        payload: Payload = b"",
        *,
        content_type: str | None = None,
        key: str | None = None,
        retain: bool = False,
        expires_in_seconds: int | None = None,
    ) -> int:
        options: dict[str, Any] = {"content_type": content_type, "key": key, "retain": retain, "expires_in_seconds": expires_in_seconds}
        return await asyncio.to_thread(self._client.publish, topic, payload, **options)

    def follow(self, filter: str, *, from_position: int | None = None) -> AsyncIterator[dict[str, Any]]:
        return stream(lambda: self._client.follow(filter, from_position=from_position))

    async def messages(
        self, filter: str, *, limit: int | None = None, before: int | None = None, from_position: int | None = None
    ) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.messages, filter, limit=limit, before=before, from_position=from_position)

    async def retained_messages(self, filter: str = "#", *, after: str | None = None) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.retained_messages, filter, after=after)

    async def topics(self, filter: str = "#", *, after: str | None = None) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.topics, filter, after=after)

    async def dead_letters(
        self, trigger_id: str | None = None, *, after: int | None = None, node: str | None = None
    ) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.dead_letters, trigger_id, after=after, node=node)

    async def retry_dead_letter(self, letter_id: int, *, node: str | None = None) -> None:
        await asyncio.to_thread(self._client.retry_dead_letter, letter_id, node=node)

    async def discard_dead_letter(self, letter_id: int, *, node: str | None = None) -> None:
        await asyncio.to_thread(self._client.discard_dead_letter, letter_id, node=node)

    async def triggers(self, *, node: str | None = None) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._client.triggers, node=node)

    async def trigger(self, trigger_id: str, *, node: str | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.trigger, trigger_id, node=node)

    async def put_trigger(
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
        options: dict[str, Any] = {"mode": mode, "concurrency": concurrency, "retry": retry, "to": to}
        return await asyncio.to_thread(self._client.put_trigger, trigger_id, function_id, filters, **options)

    async def delete_trigger(self, trigger_id: str) -> bool:
        return await asyncio.to_thread(self._client.delete_trigger, trigger_id)
