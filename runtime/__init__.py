"""From a configuration to a running graph: the command line, composition, settings, modes and the admin API."""
