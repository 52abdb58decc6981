"""The L4 relay beside HAProxy in TCP mode and nginx `stream`."""
