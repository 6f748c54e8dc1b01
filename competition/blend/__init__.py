"""The blend: fit it, estimate it, report it, write it."""
