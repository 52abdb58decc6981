"""Choosing one endpoint of a backend: one file a policy."""
