"""Versioned modules: what a program imports. Each version bridges to ``backend`` or a local fallback."""
