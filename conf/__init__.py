"""The choices: a folder is a group, a file in it an option. ``config.yaml`` says which option applies by default."""
