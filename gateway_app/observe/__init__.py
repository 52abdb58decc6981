"""What the gateway tells about itself: metrics and the access log."""
