"""The ground floor: what a competition is. It imports no learning library.

Packages in the order in which they may import, each only from those before it: data, scoring,
folds, audit, predictions, importing, submission, blend, compare, upload, board, report. All may
import the rooms that lie here: arrays, threads, errors, options, spelling, files, lease, file_kind,
console, progress, closing, provenance, upload_rules, profile_rows, profile_scoring,
profile_language, profile.
"""
