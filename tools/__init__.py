"""Scripts that generate data shipped with the repository."""
