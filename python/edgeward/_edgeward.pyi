"""The compiled classes."""

from __future__ import annotations

import builtins
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, TypedDict, TypeVar, Union, final

from edgeward._status import EdgeNodeStatus

_S = TypeVar("_S", bound=SyncState)
_Payload = Union[bytes, bytearray, str]

class Summary(TypedDict):
    """What the records of a query add up to. Durations are in milliseconds, rates in percent."""

    total: int
    total_invocations: int
    success_rate: float
    avg_latency: float
    avg_latency_ms: float
    error_count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cold_starts: int
    errors: dict[str, int]

class Health(TypedDict):
    """How the nodes of a cluster are."""

    nodes: int
    online: int
    offline: int
    degraded: int
    syncing: int
    assignments: int

class Change(TypedDict):
    """One change of a document: `update` for a whole state, `patch` for a merge patch; `remote` and `merge` came from elsewhere."""

    type: str
    version: int
    data: dict[str, Any]
    timestamp: datetime
    coalesced: int

@dataclass
class EdgeNode:
    """A physical or virtual edge node."""

    id: str
    name: str
    location: str = ""
    status: EdgeNodeStatus = EdgeNodeStatus.ONLINE
    capabilities: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    last_heartbeat: datetime = field(default_factory=datetime.now)
    labels: dict[str, str] = field(default_factory=dict)

@dataclass
class EdgeFunction:
    """A function deployable to edge nodes: a handler of Python, or the artifact of a component."""

    id: str
    name: str
    handler: Callable[..., Any] | None = None
    memory_mb: int = 128
    timeout_seconds: float = 30
    environment: dict[str, str] = field(default_factory=dict)
    artifact: bytes | str | os.PathLike[str] | None = field(default=None, kw_only=True)
    allowed_hosts: list[str] = field(default_factory=list, kw_only=True)
    documents: list[str] = field(default_factory=list, kw_only=True)
    max_concurrency: int = field(default=128, kw_only=True)
    max_queue: int = field(default=256, kw_only=True)
    max_reuse: int = field(default=1, kw_only=True)
    resilience: dict[str, Any] = field(default_factory=dict, kw_only=True)

@dataclass
class SyncState:
    """State synchronization snapshot."""

    version: int
    data: dict[str, Any]
    checksum: str
    updated_at: datetime = field(default_factory=datetime.now)

    @classmethod
    def from_data(cls: type[_S], data: dict[str, Any], version: int) -> _S:
        """A state of now, with the checksum of `data`."""
    def verify(self) -> bool:
        """Whether the checksum is that of the data."""

@dataclass
class InvocationRecord:
    """Record of a single function invocation."""

    function_id: str
    node_id: str
    duration_ms: float
    success: bool
    timestamp: datetime = field(default_factory=datetime.now)
    error: str = ""

@final
class EdgeMetrics:
    """Tracks invocation metrics and answers queries. Thread-safe."""

    def __init__(self) -> None: ...
    def record(self, record: InvocationRecord) -> None:
        """Counts one invocation."""
    def total_invocations(self, function_id: str | None = None, node_id: str | None = None) -> int:
        """Number of invocations: all, those of a function, of a node, or both."""
    def success_rate(self, function_id: str | None = None, node_id: str | None = None) -> float:
        """Successful invocations in percent, 0 to 100; 100 with no records."""
    def avg_latency_ms(self, function_id: str | None = None, node_id: str | None = None) -> float:
        """Mean duration in milliseconds; 0 with no records."""
    def error_count(self, function_id: str | None = None, node_id: str | None = None) -> int:
        """Number of failed invocations."""
    def summary(self, function_id: str | None = None, node_id: str | None = None) -> Summary:
        """All of these in one consistent reading, with percentiles, cold starts and kinds of errors."""
    def prometheus(self) -> str:
        """The records in the text format of Prometheus."""

@final
class EdgeRuntime:
    """Runs functions on one node. Thread-safe."""

    def __init__(self, node: EdgeNode, *, documents: Documents | None = None) -> None:
        """`documents` are those that components may be granted."""
    @property
    def node(self) -> EdgeNode:
        """The node that this runtime is."""
    @property
    def metrics(self) -> EdgeMetrics:
        """What ran here so far."""
    def deploy(self, function: EdgeFunction) -> None:
        """Deploys a function as its fields say now; one of the same id is replaced."""
    def deploy_async(self, function: EdgeFunction) -> Awaitable[None]:
        """The same, to be awaited."""
    def undeploy(self, function_id: str) -> bool:
        """Removes a function; says whether it was there. What runs of it ends undisturbed."""
    def list_functions(self) -> list[EdgeFunction]:
        """The functions that are deployed here, in the order in which they first were."""
    def invoke(self, function_id: str, *args: Any, **kwargs: Any) -> Any:
        """Invokes a function: a handler with these arguments, whose result this returns; a component with one payload, whose answer it
        returns as bytes."""
    def invoke_async(self, function_id: str, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """The same, to be awaited."""

@final
class EdgeCluster:
    """Nodes and what they should run. Thread-safe."""

    def __init__(self) -> None: ...
    def register_node(self, node: EdgeNode) -> EdgeRuntime:
        """Adds a node and returns its runtime. Of an id that is registered already the node is replaced, and its runtime stays."""
    def deregister_node(self, node_id: str) -> bool:
        """Removes a node; says whether it was there."""
    def heartbeat(self, node_id: str) -> None:
        """Notes that a node reported now: its `last_heartbeat` is now and its `status` ONLINE. Of an unknown id it changes nothing."""
    def get_node(self, node_id: str) -> EdgeNode | None:
        """The very object that was registered, or None."""
    def get_runtime(self, node_id: str) -> EdgeRuntime | None:
        """The runtime of a node, or None."""
    def list_nodes(self, status: EdgeNodeStatus | None = None) -> list[EdgeNode]:
        """The nodes with this status, or all, in the order of their registration."""
    def health(self) -> Health:
        """How the nodes are, in numbers."""
    @property
    def documents(self) -> Documents:
        """The documents of the cluster, which functions of its nodes may be granted."""
    def deploy_to_all(self, function: EdgeFunction) -> int:
        """Deploys a function to every node; returns to how many. What one node cannot run, no node gets."""
    def deploy_to_all_async(self, function: EdgeFunction) -> Awaitable[int]:
        """The same, to be awaited."""
    def deploy_to_node(self, node_id: str, function: EdgeFunction) -> None:
        """Deploys a function to one node."""
    def deploy_to_node_async(self, node_id: str, function: EdgeFunction) -> Awaitable[None]:
        """The same, to be awaited."""

    def call(self, function_id: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a function on the node that takes the call best, and on another one when that fails and it does no harm, as the
        `resilience` of the function says. The arguments are those of `invoke` of a runtime."""
    def call_async(self, function_id: str, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """The same, to be awaited."""
    def calling(self, timeout_seconds: float | None = None, *, idempotent: bool = False) -> Calls:
        """Calls with less time than their functions may take, or which may run twice, as all arguments of `call` are those of the
        function."""
    def routes(self) -> list[dict[str, Any]]:
        """How the calls of each function are routed: its nodes in the order in which they are asked, and how they do."""
    @property
    def deployments(self) -> Deployments:
        """What should run where, and how it gets there."""
    def deploy_least_loaded(self, function: EdgeFunction) -> dict[str, Any]:
        """Deploys a function to the node with the least to do; returns the deployment."""
    def drain_node(self, node_id: str) -> None:
        """Has deployed functions with a number of nodes leave a node: first there, then gone here."""
    def undrain_node(self, node_id: str) -> None:
        """Lets them come again."""
    def hold_node(self, node_id: str, reason: str = "", *, seconds: int | None = None) -> None:
        """Lets a node get no new revisions, for so long or until `unhold_node`; what it runs goes on."""
    def unhold_node(self, node_id: str) -> None:
        """Lets a node get new revisions again."""
    def allow_chaos(self) -> None:
        """Lets experiments inject faults on the nodes of this cluster."""
    def run_experiment(self, experiment: str | dict[str, Any]) -> dict[str, Any]:
        """Runs an experiment of chaos engineering: the text of its file, or a dictionary. Returns its report once it is over. Interrupted, it
        is ended."""
    def run_experiment_async(self, experiment: str | dict[str, Any]) -> Awaitable[dict[str, Any]]:
        """The same, to be awaited. Cancelled, it runs on; `stop_experiment` ends it."""
    def experiments(self) -> builtins.list[dict[str, Any]]:
        """The experiments that this cluster runs or ran, the newest first."""
    def stop_experiment(self, experiment_id: str) -> dict[str, Any]:
        """Ends an experiment before its time, and returns it once its faults have ended."""

@final
class Calls:
    """Calls of a cluster on terms of their own. Thread-safe."""

    def call(self, function_id: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a function as `EdgeCluster.call` does."""
    def call_async(self, function_id: str, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """The same, to be awaited."""

@final
class Deployments:
    """The deployments of a cluster in this process. Thread-safe. Answers are what the HTTP API of a hub says."""

    def put(
        self,
        function: EdgeFunction,
        to: str = "all",
        strategy: str | dict[str, Any] | None = None,
        *,
        if_generation: int | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Wants a function to run on the nodes of a target, in place of an earlier deployment of it; what is the same as before changes
        nothing. Returns the deployment, or with `dry_run` the plan."""
    def list(self) -> builtins.list[dict[str, Any]]:
        """Every deployment, by function."""
    def get(self, function_id: str) -> dict[str, Any]:
        """One deployment."""
    def delete(self, function_id: str) -> bool:
        """Removes a deployment: its function is taken from every node. Says whether there was one."""
    def revisions(self, function_id: str) -> builtins.list[dict[str, Any]]:
        """The revisions of a function that are kept, oldest first."""
    def diff(self, function_id: str, from_revision: int, to_revision: int) -> builtins.list[dict[str, Any]]:
        """In what two revisions of a function differ."""
    def rollouts(self) -> builtins.list[dict[str, Any]]:
        """Every rollout that is kept, the newest of each function first."""
    def rollout(self, rollout_id: str) -> dict[str, Any]:
        """One rollout, by its id or by its function, of which it is then the present one."""
    def wait(self, function_id: str, timeout_seconds: float = 600) -> dict[str, Any]:
        """Waits until the rollout of what is wanted now has ended, is paused or awaits approval; returns it. When that takes longer, it
        raises EdgeTimeoutError."""
    def pause(self, rollout_id: str) -> dict[str, Any]:
        """Lets no further node get the revision of a rollout; what runs is still judged."""
    def resume(self, rollout_id: str) -> dict[str, Any]:
        """Lets a paused rollout go on."""
    def approve(self, rollout_id: str) -> dict[str, Any]:
        """Agrees to what a rollout waits for."""
    def abort(self, rollout_id: str) -> dict[str, Any]:
        """Ends a rollout, and brings the former revision back."""
    def rollback(self, rollout_id: str, revision: int | None = None) -> dict[str, Any]:
        """Goes back to the revision before, or to one that is kept, on all nodes at once; returns the deployment."""
    def rebalance(self, moves_max: int = 100) -> builtins.list[dict[str, Any]]:
        """Moves functions with a number of nodes from nodes with many functions to nodes with few; returns the moves."""

@final
class EdgeSynchronizer:
    """Keeps one state, the changes of it that are not confirmed, and merges a newer one. Thread-safe."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """The state in a folder, which is made when it is missing; without one it ends with the process."""
    def update_local(self, data: dict[str, Any]) -> SyncState:
        """Makes `data` the whole state; returns it, one version on."""
    def patch_local(self, patch: dict[str, Any]) -> SyncState:
        """Changes the state by a JSON merge patch (RFC 7396): None deletes a key. Returns it, one version on."""
    def apply_remote(self, remote: SyncState) -> bool:
        """Takes over a remote state when its version is higher; says whether it did."""
    def get_pending_changes(self) -> list[Change]:
        """The local changes that are not confirmed, oldest first."""
    def confirm_sync(self, up_to_version: int) -> None:
        """Confirms the pending changes up to this version."""
    def get_local_state(self) -> SyncState | None:
        """The state, or None before the first one."""

@final
class Documents:
    """The documents of one replica. Thread-safe."""

    def __init__(self, path: str | os.PathLike[str] | None = None, *, node_id: str = "local") -> None:
        """The documents in a folder, which is made when it is missing; without one they end with the process."""
    def list(self) -> builtins.list[str]:
        """The names of the documents that exist, sorted."""
    def document(self, name: str) -> Document:
        """The document of this name, whether it exists or not: the first change makes it."""
    def __getitem__(self, name: str, /) -> Document: ...
    def __contains__(self, name: str, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...

@final
class Document:
    """One document."""

    @property
    def name(self) -> str:
        """Its name."""
    def view(self) -> SyncState | None:
        """The whole document, or None when it does not exist."""
    def get(self, key: str, default: Any = None) -> Any:
        """The value of one key, or `default`."""
    def keys(self) -> list[str]:
        """The keys that there are, sorted."""
    def __getitem__(self, key: str, /) -> Any: ...
    def __setitem__(self, key: str, value: Any, /) -> None: ...
    def __delitem__(self, key: str, /) -> None: ...
    def __contains__(self, key: str, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def replace(self, data: dict[str, Any], *, if_version: int | None = None) -> SyncState:
        """Makes `data` the whole document; returns its new state. With `if_version`, only in that version, 0 for none."""
    def patch(self, patch: dict[str, Any], *, if_version: int | None = None) -> SyncState:
        """Changes the document by a JSON merge patch (RFC 7396): None deletes a key. Returns its new state."""
    def increment(self, key: str, by: int = 1) -> int:
        """Adds to a counter and returns the sum: what replicas count while apart adds up."""
    def clear(self, *, if_version: int | None = None) -> bool:
        """Deletes every key; says whether there was one."""
    def pending(self) -> list[Change]:
        """The changes that `confirm` has not covered, oldest first."""
    def history(self) -> list[Change]:
        """The changes that are kept, oldest first."""
    def confirm(self, up_to_version: int) -> None:
        """Confirms the pending changes up to this version."""
    def take_over(self, state: SyncState) -> bool:
        """Takes over a state of a higher version; says whether it was taken."""
    def watch(self) -> AsyncIterator[SyncState]:
        """The states of this document as they come, the one of now first: for `async for`."""

@final
class Topics:
    """Messages that are published once and read by many, in this process. Thread-safe. Names, arguments and answers are those of `Client`."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """The topics in a folder, which is made when it is missing, and which one process opens at a time; without one they lie in a
        temporary folder and end with the process."""
    def publish(
        self,
        topic: str,
        payload: _Payload = b"",
        *,
        content_type: str | None = None,
        key: str | None = None,
        retain: bool = False,
        expires_in_seconds: int | None = None,
    ) -> int:
        """Publishes a message; returns its position when it is on the disk.

        Messages of one `key` come in their order; with `retain`, it is kept for `retained_messages`. A payload of the type
        `application/cloudevents+json` is published as the CloudEvent that it is."""
    def publish_async(
        self,
        topic: str,
        payload: _Payload = b"",
        *,
        content_type: str | None = None,
        key: str | None = None,
        retain: bool = False,
        expires_in_seconds: int | None = None,
    ) -> Awaitable[int]:
        """The same, to be awaited."""
    def follow(self, filter: str, *, from_position: int | None = None) -> FollowedTopics:
        """The messages of a filter, such as `site/+/temp`, as they come: from a position on, 1 for the oldest, or from now on."""
    def messages(
        self, filter: str, *, limit: int | None = None, before: int | None = None, from_position: int | None = None
    ) -> dict[str, Any]:
        """The newest messages of a filter, in pages: `messages`, the oldest first, and `before` for the page of older ones.

        With `from_position` those from there on: `next` is where the next page begins, `lost` are those that are gone from there."""
    def retained_messages(self, filter: str = "#", *, after: str | None = None) -> list[dict[str, Any]]:
        """The retained messages of a filter whose topics come after `after`, a page of them; the last page is empty."""
    def topics(self, filter: str = "#", *, after: str | None = None) -> list[dict[str, Any]]:
        """The topics that have messages, up to 1000 whose names come after `after`."""
    def on(
        self,
        filter: str | list[str],
        runtime: EdgeRuntime,
        function_id: str,
        *,
        trigger_id: str | None = None,
        attempts: int | None = None,
        concurrency: int | None = None,
        retry: dict[str, int] | None = None,
    ) -> TopicTrigger:
        """Has a function of a runtime called for each message of a filter, or of several, from now on, at least once and in order of keys.

        A handler gets one dictionary, the event. One that fails `attempts` times (5) leaves a dead letter. A trigger of a `trigger_id`
        (the function's) that there was in the folder goes on where that was. `retry` has `attempts`, `pause_min_ms` and `pause_max_ms`."""
    def triggers(self) -> list[dict[str, Any]]:
        """The triggers that run, and how each does."""
    def delete_trigger(self, trigger_id: str) -> bool:
        """Forgets how far a trigger got that is closed; says whether there was one. Its dead letters stay."""
    def dead_letters(self, trigger_id: str | None = None, *, after: int | None = None) -> list[dict[str, Any]]:
        """Messages that functions could not handle, of one trigger or of all, after an id, a page of them; the last page is empty."""
    def retry_dead_letter(self, letter_id: int) -> None:
        """Has a message tried again by its trigger, from the first attempt on."""
    def discard_dead_letter(self, letter_id: int) -> None:
        """Removes a message that was given up."""

@final
class FollowedTopics:
    """The messages of a filter as they come, for `for` and `async for`. It may be closed from any thread."""

    def __iter__(self) -> FollowedTopics: ...
    def __next__(self) -> dict[str, Any]: ...
    def __aiter__(self) -> FollowedTopics: ...
    def __anext__(self) -> Awaitable[dict[str, Any]]: ...
    @property
    def lost(self) -> int:
        """Messages, of whatever topic, that were gone before they could be told."""
    def close(self) -> None:
        """Ends it, and a wait for what comes next."""

@final
class TopicTrigger:
    """A trigger that runs until it is closed, or its `Topics` are gone. A context manager, also for `async with`."""

    @property
    def id(self) -> str:
        """Its id."""
    def view(self) -> dict[str, Any]:
        """What it is, and how it does."""
    def close(self) -> None:
        """Ends it: waits for the calls under way, ten seconds at most; what they have not ended by then comes again."""
    def close_async(self) -> Awaitable[None]:
        """The same, to be awaited."""
    def __enter__(self) -> TopicTrigger: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...
    def __aenter__(self) -> Awaitable[TopicTrigger]: ...
    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> Awaitable[None]: ...

def after_fork_in_child() -> None: ...
