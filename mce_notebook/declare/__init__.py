"""What to compute: axes, grids, experiments, versions and seeds; pure values, no I/O but looking at the environment."""
