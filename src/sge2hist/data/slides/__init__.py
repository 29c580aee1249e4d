"""Slide images: opened by region, written as pyramids."""
