"""What a variant names, and where ideas are added: input formats, heads, losses.

Rooms in reading order: particles, formats, heads, losses, restriction.

Open: particles, formats, heads, losses, restriction.
"""
