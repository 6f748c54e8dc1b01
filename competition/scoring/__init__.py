"""Scores as the leaderboard computes them, with bootstrap intervals.

Rooms in reading order: metrics, degenerate, bootstrap, assessment, label_shift, expected.

Open: metrics, degenerate, bootstrap, assessment, expected.
"""
