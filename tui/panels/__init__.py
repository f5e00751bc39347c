"""What each part of a screen says: pure functions from the state to lines, shared with `--once`."""
