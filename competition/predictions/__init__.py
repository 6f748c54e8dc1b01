"""The store of out-of-fold and test predictions; variants joined to members of a blend.

Rooms in reading order: stored, store, rerun, belonging, members, expected_scores,
variant_scores, foreign_table, importing.

Open: store, rerun, belonging, members, expected_scores, variant_scores, importing.
"""
