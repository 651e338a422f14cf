"""Files and what they may do to us: errors, text, images, locks."""
