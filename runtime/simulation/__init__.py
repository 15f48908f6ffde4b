"""Virtual time: the same objects that serve, without the waiting."""
