"""What-if: arrivals replayed through the scheduler in virtual time, or sent to a daemon that runs."""
