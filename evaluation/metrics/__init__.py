"""Depth and pose metrics: numpy, float64, no network, no files."""
