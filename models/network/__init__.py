"""Encoder, head and new parameters in one module."""
