"""Frames in, depth and motion out, and the files that are made of them."""
