"""A simulated low-voltage feeder. Nothing it makes was ever measured."""
