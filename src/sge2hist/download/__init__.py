"""Published data: a catalogue of public data sets, and their download, verification and unpacking."""
