"""What `data` prints: counts, and adversarial validation of train against test.

Rooms in reading order: counts, shift, audit.

Open: audit, shift.
"""
