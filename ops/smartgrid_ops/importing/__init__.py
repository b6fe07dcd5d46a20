"""From a file of measurements to batches over HTTP."""
