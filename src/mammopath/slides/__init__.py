"""Whole slides: from files to patch features, bags, maps and stages."""
