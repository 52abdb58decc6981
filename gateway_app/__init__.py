"""An API gateway as an ASGI application."""
