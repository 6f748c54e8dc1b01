"""Folds and length routes: made once and frozen."""
