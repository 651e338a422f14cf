"""What surrounds the training loop of train.py."""
