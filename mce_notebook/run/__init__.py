"""Carry out what was declared: hosts own clusters, the engine feeds blocks, slots run user code."""
