"""Where state outlives a restart."""
