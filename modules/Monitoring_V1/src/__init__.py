"""Where the version meets its implementation."""
