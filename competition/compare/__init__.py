"""Is the difference between two variants or blends real: a paired bootstrap.

Rooms in reading order: contenders, compare, tables.

Open: contenders, compare, tables.
"""
