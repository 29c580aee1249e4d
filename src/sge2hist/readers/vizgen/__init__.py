"""Vizgen's formats."""
