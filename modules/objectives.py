"""The door to what the backend says of objectives before any runs: OpenSLO files, and the table of burn alerts."""

from __future__ import annotations

from backend.shared.monitoring.burn import alert_table
from backend.shared.monitoring.openslo import OpenSLOError, OpenSLOProblem, read_openslo

__all__ = ["OpenSLOError", "OpenSLOProblem", "alert_table", "read_openslo"]
