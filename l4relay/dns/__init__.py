"""Names and their addresses, asked for again when their time is over."""
