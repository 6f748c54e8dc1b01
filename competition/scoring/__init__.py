"""Scores as the leaderboard computes them, with bootstrap intervals.

Rooms in reading order: metrics, bootstrap, assessment, label_shift, expected.

Open: metrics, bootstrap, assessment, expected.
"""
