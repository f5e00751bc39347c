"""The monitor: what the daemon does, in a terminal, and the hand on the switch. A client like any other."""
