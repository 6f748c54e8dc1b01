"""The store of out-of-fold and test predictions."""
