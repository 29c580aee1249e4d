"""Generated images against the paired dataset -> report."""
