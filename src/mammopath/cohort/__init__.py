"""Which images belong together: manifest, checks, splits, batches."""
