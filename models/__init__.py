"""The middle floor: what learns, and how it is trained."""
