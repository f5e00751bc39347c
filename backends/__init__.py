"""Running one model in another process."""
