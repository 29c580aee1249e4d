"""Whether the image is the right one and the counts match it; the map between them, found or given."""
