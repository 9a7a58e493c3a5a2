"""Files of pixels in, with their geometry."""
