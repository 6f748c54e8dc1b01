"""The building blocks of variants, where new ideas are added: input formats, heads, losses.

Rooms in reading order: particles, markers, formats, heads, losses, restriction, combinations.

Open: particles, markers, formats, heads, losses, restriction, combinations.
"""
