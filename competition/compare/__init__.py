"""Is a difference real: paired bootstrap of two contenders."""
