"""Compare two variants or blends by a paired bootstrap.

Rooms in reading order: contenders, seed_spread, compare, tables.

Open: contenders, compare, tables.
"""
