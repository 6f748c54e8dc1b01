"""Training data of a fold: cleaning, pseudo- and soft labels, augmentation, curriculum, batches.

Held-out labels never enter this package.

Rooms in reading order: hub_rows, corrections, cleaning, extra_rows, pseudo_labels, distillation,
pool, route, ngrams, augmentation, frame, packing, batches, curriculum, sampling, fold_inputs.

Open: augmentation, batches, cleaning, corrections, curriculum, distillation, extra_rows,
fold_inputs, hub_rows, ngrams, packing, pool, pseudo_labels, route, sampling.
"""
