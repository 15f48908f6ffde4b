"""Standard-library fallbacks: what serves when the backend is off or missing."""
