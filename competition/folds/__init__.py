"""K-fold assignment by groups and routes by length: made once, then frozen with a hash.

Rooms in reading order: assignment, largest_group, frozen_table, kfold, length_routes, strata.

Open: kfold, assignment, largest_group, length_routes, strata.
"""
