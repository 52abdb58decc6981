"""Starting what `gateway serve` runs: a server's workers, and the relay beside them.

The gateway itself is an ASGI application and knows nothing of this; any other server serves it as well.
"""
