"""How the gateway writes time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

# The gateway's wall clock. A fixed offset, because China has no summer time and a container may lack
# zone files; the process's own zone never matters.
GATEWAY_ZONE = timezone(timedelta(hours=8), "GMT+8")


def gateway_time(epoch_seconds: float) -> str:
    """Return an instant as the gateway writes it: `yyyy-MM-dd HH:mm:ss`, GMT+8 wall clock."""
    return datetime.fromtimestamp(epoch_seconds, GATEWAY_ZONE).strftime("%Y-%m-%d %H:%M:%S")
