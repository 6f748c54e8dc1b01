"""Grouped stratified K-fold assignment, and routes by length: built once, then frozen by a hash.

Rooms in reading order: assignment, largest_group, frozen_table, kfold, length_routes, strata.

Open: kfold, assignment, largest_group, length_routes, strata.
"""
