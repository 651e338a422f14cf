"""Colours and sheets of pictures."""
