"""Image features that metrics stand on."""
