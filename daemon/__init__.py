"""The daemon: decides, and lets workers compute."""
