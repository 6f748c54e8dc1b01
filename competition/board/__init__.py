"""How variants, blends and submissions stand, and which to select."""
