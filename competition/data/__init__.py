"""From the bytes of a file to checked rows, and which rows belong together.

Rooms in reading order: csv_records, entities, rows, corpus, groups.

Open: csv_records, rows, corpus, groups.
"""
