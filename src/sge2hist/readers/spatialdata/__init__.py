"""SpatialData stores: elements, coordinate systems, positions, and the sections made of them."""
