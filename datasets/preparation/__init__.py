"""From a download to the prepared layout, and the check of the result."""
