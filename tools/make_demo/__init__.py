"""The grammar that generated the data of the bundled demo."""
