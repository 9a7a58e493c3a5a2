"""From pixels to model input."""
