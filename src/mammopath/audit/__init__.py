"""The audit of a run's maps: are they of this network, do they show what it uses, do they find lesions."""
