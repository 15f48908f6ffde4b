"""Monitoring, the quarantined version: metrics read only, for comparison and export."""
