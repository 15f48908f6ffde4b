"""Monitoring, the production version: metrics with objectives, error budgets and alerts."""
