"""Where jobs run: one small interface, and one file for each engine behind it."""
