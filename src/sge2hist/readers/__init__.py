"""Instrument folders: one file per vendor format, each returns a `Section`."""
