"""What the out-of-fold rows show: errors, suspected wrong labels, and one page with all of it.

Rooms in reading order: suspects, error_analysis, error_tables, curves, next_steps, page, training,
report.

Open: error_tables, report.
"""
