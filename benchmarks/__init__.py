"""Measurements of the project: speed, exactness, and the comparisons of docs/experiments.md."""
