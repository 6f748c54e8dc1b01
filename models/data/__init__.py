"""From the rows of a fold to batches."""
