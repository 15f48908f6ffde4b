"""SLO windows, objectives and metrics."""
