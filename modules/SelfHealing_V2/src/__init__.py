"""The implementation; ``backend_integration`` is its door."""
