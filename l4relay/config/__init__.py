"""What a file says to the relay: reading it, its values, and mistakes with their lines."""
