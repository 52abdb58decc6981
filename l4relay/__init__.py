"""A relay for what is not HTTP: TCP and UDP, deciding by address and port alone.

The way of a connection, file by file:

    listener ──▶ admission ──▶ tcp ─────────────────▶ endpoints ──▶ flow
    accepts      networks,     PROXY header, server   balance,      moves the bytes,
                 limits        name, connecting       health        over `pipes` in bulk

    listener ──▶ admission ──▶ udp ─────────────────▶ endpoints
                               a session for each client

`poller` is what calls each of them; `worker` starts, reloads and drains them all, and `supervisor` keeps
several workers. Around that: `config/` (the file), `dns/` (names of endpoints), `proxy_protocol`, `sni`
(names in a ClientHello) and `observe/` (log, status, metrics). Only the standard library is needed.
"""
