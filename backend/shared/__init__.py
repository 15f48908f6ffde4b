"""Implementations by subject."""
