"""The heart: owns all state and carries decisions out."""
