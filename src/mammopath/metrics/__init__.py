"""Figures from predictions, numpy and scipy only."""
