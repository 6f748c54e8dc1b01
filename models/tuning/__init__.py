"""Hyperparameter search with Optuna: resumable, on one machine or over PostgreSQL.

Rooms in reading order: space, storage, plan, study, report, tune.

Open: tune, plan.
"""
