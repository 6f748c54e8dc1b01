"""What a variant names: input formats, heads, losses."""
