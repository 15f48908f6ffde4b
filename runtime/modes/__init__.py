"""What a run does with a composed configuration: a file a mode."""
