"""The grammar that wrote the data of the bundled demo."""
