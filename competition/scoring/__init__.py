"""Micro-F1, AUPRC and the bootstrap."""
