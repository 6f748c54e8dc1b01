"""Scores as the leaderboard computes them, with bootstrap intervals.

Rooms in reading order: decisions, criteria, labels, degenerate, bootstrap, assessment,
label_shift, expected.

Open: decisions, criteria, labels, degenerate, bootstrap, assessment, label_shift, expected.
"""
