"""Which route a request takes: the target's normal form, the conditions, and the compiled table.

`target` and `host` bring what a client wrote into one form, `match` states a rule, `table` finds the first
rule in precedence order that holds. Nothing here knows the configuration file, an upstream or a socket.
"""
