"""The specification's import path for Edgeward. Everything is in the package `edgeward`."""

from edgeward import (
    EdgeCluster,
    EdgeExecutionError,
    EdgeFunction,
    EdgeMetrics,
    EdgeNode,
    EdgeNodeStatus,
    EdgeRuntime,
    EdgeSynchronizer,
    InvocationRecord,
    SyncState,
)

__all__ = [
    "EdgeCluster",
    "EdgeExecutionError",
    "EdgeFunction",
    "EdgeMetrics",
    "EdgeNode",
    "EdgeNodeStatus",
    "EdgeRuntime",
    "EdgeSynchronizer",
    "InvocationRecord",
    "SyncState",
]
