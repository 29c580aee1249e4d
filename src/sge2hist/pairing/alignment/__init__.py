"""Whether the image is the right one and the counts match it."""
