"""Training data of a fold: cleaning, pseudo-labelling, augmentation, curriculum, batches.

Held-out labels never enter this package.

Rooms in reading order: corrections, cleaning, extra_rows, pseudo_labels, pool, route, augmentation,
frame, batches, curriculum, sampling, fold_inputs.

Open: augmentation, batches, cleaning, corrections, curriculum, extra_rows, fold_inputs, pool,
pseudo_labels, route, sampling.
"""
