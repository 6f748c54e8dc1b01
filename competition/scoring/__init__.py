"""Scores as the leaderboard computes them, with bootstrap intervals.

Rooms in reading order: decisions, criteria, degenerate, bootstrap, assessment, label_shift,
expected.

Open: decisions, criteria, degenerate, bootstrap, assessment, label_shift, expected.
"""
