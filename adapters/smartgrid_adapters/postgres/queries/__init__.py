"""What HTTP asks, in SQL."""
