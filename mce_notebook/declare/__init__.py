"""What to compute: axes, grids, experiments, versions and seeds; pure values, hardly any I/O."""
