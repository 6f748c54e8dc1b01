"""Scores as the leaderboard computes them, with bootstrap intervals.

Rooms in reading order: metrics, bootstrap, assessment.

Open: metrics, bootstrap, assessment.
"""
