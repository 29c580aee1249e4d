"""Whether and how an image lies on the cells."""
