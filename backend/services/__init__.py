"""Whole services built from the shared parts."""
