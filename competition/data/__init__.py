"""From CSV bytes to checked rows, and which rows belong together."""
