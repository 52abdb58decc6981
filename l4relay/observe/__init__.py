"""What the relay tells of itself: access log, metrics and status."""
