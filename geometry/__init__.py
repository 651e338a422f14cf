"""Rigid motions and the pinhole camera, as pure functions on tensors."""
