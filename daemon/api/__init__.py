"""The doors: wire formats to words and back."""
