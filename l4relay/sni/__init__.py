"""Choosing endpoints by the name in a TLS ClientHello, without terminating anything."""
