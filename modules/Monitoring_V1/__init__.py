"""Monitoring, the experimental version: a plain metrics collector."""
