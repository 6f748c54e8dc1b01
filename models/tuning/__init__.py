"""Hyperparameter search with Optuna: resumable, with pruning, on one machine or several.

Rooms in reading order: space, storage, plan, study, report, parallel, tune.

Open: tune, plan.
"""
