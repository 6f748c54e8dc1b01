"""The board: scores of variants, blends and submissions, and which submissions to select.

Rooms in reading order: blends, final_picks, final_table, board.

Open: blends, board.
"""
