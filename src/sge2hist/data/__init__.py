"""What every stage shares: errors, files, gene panels, slide images and the paired dataset."""
