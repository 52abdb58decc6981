"""A relay for what is not HTTP: TCP and UDP, deciding by address and port alone."""
