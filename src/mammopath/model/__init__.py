"""The network: one trunk, parts per modality."""
