"""The rules: events and time in, decisions out. No asyncio, no clock, no I/O."""
