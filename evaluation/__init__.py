"""Ground truth, metrics, baselines and predictions on disk."""
