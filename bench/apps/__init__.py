"""The ASGI applications that the benchmark serves beside the gateway."""
