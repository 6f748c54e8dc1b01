"""The bundled demo competition: its data, and the grammar that makes it."""
