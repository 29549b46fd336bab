"""Benchmarks: each target beside the bare loop and the peers, as ratios of one run (`make bench`)."""
