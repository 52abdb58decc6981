"""State that outlives a request, in its different homes."""
