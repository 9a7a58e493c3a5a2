"""Test-time adaptation: an adapted copy, never the source."""
