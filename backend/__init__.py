"""The full implementations. They know no versions, no configuration files and no command line."""
