"""Health of a node."""

import enum


class EdgeNodeStatus(enum.Enum):
    """Health of a node."""

    ONLINE = "online"
    OFFLINE = "offline"
    DEGRADED = "degraded"
    SYNCING = "syncing"
