"""From the rows of a fold to batches; held-out labels never get here.

Rooms in reading order: corrections, cleaning, extra_rows, pseudo_labels, pool, route, augmentation,
frame, batches, curriculum, sampling, fold_inputs.

Open: augmentation, batches, cleaning, corrections, curriculum, extra_rows, fold_inputs, pool,
pseudo_labels, route, sampling.
"""
