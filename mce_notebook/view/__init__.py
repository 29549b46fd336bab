"""Whatever reads the store: datasets, progress, plots."""
