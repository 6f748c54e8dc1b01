"""From the bytes of a file to checked rows, and which rows belong together.

Rooms in reading order: csv_records, values, tables, benchmark, causes, entities, rows, row_forms,
row_checks, corpus, groups.

Open: csv_records, values, tables, benchmark, causes, entities, rows, row_forms, corpus, groups.
"""
