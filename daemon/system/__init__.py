"""The hands: what touches the machine."""
