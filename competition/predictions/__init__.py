"""The store of out-of-fold and test predictions; variants joined to members of a blend.

Rooms in reading order: stored, store, rerun, belonging, members, label_order, alignment,
expected_scores, fold_scales, variant_scores, learning_curves, foreign_cells, foreign_columns,
foreign_rows, foreign_arrays, foreign_probs, foreign_places, foreign_table, import_review,
importing.

Open: store, rerun, belonging, members, alignment, expected_scores, variant_scores,
learning_curves, importing.
"""
