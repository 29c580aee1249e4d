"""Formats of STOmics (BGI)."""
