"""Formats of NanoString (Bruker Spatial Biology)."""
