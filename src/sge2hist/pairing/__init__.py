"""Instrument folders and images -> paired dataset: image checks, cells of bins, filters, split, labels, report."""
