"""The store of out-of-fold and test predictions; variants joined to members of a blend.

Rooms in reading order: stored, store, rerun, belonging, log_mean, members, expected_scores,
fold_scales, variant_scores, variants_table, learning_curves.

Open: store, rerun, belonging, log_mean, members, expected_scores, variant_scores, variants_table,
learning_curves.
"""
