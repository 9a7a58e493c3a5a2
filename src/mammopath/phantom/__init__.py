"""A synthetic cohort with known truth, in real file formats. Its numbers are never clinical."""
