"""Readers of 10x Genomics formats."""
