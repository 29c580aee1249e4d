"""The evaluation report as a page."""
