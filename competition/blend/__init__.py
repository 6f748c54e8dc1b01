"""The ensemble: soft voting in log space, fitted, estimated by nesting, reported, written.

Rooms in reading order: pooling, objective, selection, search, fit, reweighting, diagnostics,
public_noise, report, spec, blend, tables, risk_tables.

Open: blend, fit, pooling, reweighting, search, tables.
"""
