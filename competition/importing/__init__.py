"""``run.py import``: predictions made elsewhere, checked row by row and added to the store.

Rooms in reading order: cells, columns, table, numpy_files, probs, places, label_order, rows,
alignment, review, importing.

Open: alignment, importing.
"""
