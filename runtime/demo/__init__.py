"""The demo deployment: three small HTTP services that can be broken on purpose, in the standard library alone.

Nothing is imported here, because every service starts this package and should be up at once.
"""
