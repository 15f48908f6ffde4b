"""The admin API: what a deployment looks like and how it is steered, over HTTP on a loopback address."""
