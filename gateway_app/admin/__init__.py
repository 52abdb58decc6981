"""The admin listener: metrics and status of the whole gateway, apart from the public listener."""
