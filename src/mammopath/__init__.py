"""mammopath: models that read mammograms and breast histopathology together."""

__version__ = "0.1.0"

RESEARCH_USE_ONLY = "For research use only. Not for use in diagnostic procedures."
"""Stands on every report, page and exported object."""
