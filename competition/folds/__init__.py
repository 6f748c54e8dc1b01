"""K-fold assignment by groups and routes by length: made once, then frozen with a hash.

Rooms in reading order: assignment, frozen_table, kfold, length_routes.

Open: kfold, assignment, length_routes.
"""
