"""Loss terms, style mixing, and the table of training methods."""
