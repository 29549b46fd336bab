"""Kinds of cluster, one module each."""
