"""Edgeward: functions next to the data, and state in sync when the network is not there.

The classes are those that the daemon runs on, compiled from Rust. What lies in Python here is what is better there: an enumeration,
exceptions, and the loop around a handler.
"""

import os

from edgeward import _records
from edgeward._async_client import AsyncClient
from edgeward._edgeward import (
    Calls,
    Deployments,
    Document,
    Documents,
    EdgeCluster,
    EdgeFunction,
    EdgeMetrics,
    EdgeNode,
    EdgeRuntime,
    EdgeSynchronizer,
    FollowedTopics,
    InvocationRecord,
    SyncState,
    Topics,
    TopicTrigger,
    after_fork_in_child,
)
from edgeward._errors import EdgeExecutionError, EdgeTimeoutError
from edgeward._status import EdgeNodeStatus
from edgeward.client import Client

__all__ = [
    "AsyncClient",
    "Calls",
    "Client",
    "Deployments",
    "Document",
    "Documents",
    "EdgeCluster",
    "EdgeExecutionError",
    "EdgeFunction",
    "EdgeMetrics",
    "EdgeNode",
    "EdgeNodeStatus",
    "EdgeRuntime",
    "EdgeSynchronizer",
    "EdgeTimeoutError",
    "FollowedTopics",
    "InvocationRecord",
    "SyncState",
    "TopicTrigger",
    "Topics",
]

_records.complete(EdgeNode, EdgeFunction, SyncState, InvocationRecord)
os.register_at_fork(after_in_child=after_fork_in_child)
