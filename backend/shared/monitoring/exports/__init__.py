"""Objectives in the formats of others: Prometheus rules, a Grafana dashboard, OpenSLO documents."""
