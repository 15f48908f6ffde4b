"""Objectives from OpenSLO v1 documents."""

from backend.shared.monitoring.openslo.fields import OpenSLOProblem
from backend.shared.monitoring.openslo.reader import Imported, OpenSLOError, read_openslo

__all__ = ["Imported", "OpenSLOError", "OpenSLOProblem", "read_openslo"]
