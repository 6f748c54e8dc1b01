"""The ensemble: weighted soft voting in log space, with a nested estimate of its score.

There is no stacking: no meta-model is trained on the members' predictions, only weights, a
decision threshold and a temperature (calibration) are fitted.

Rooms in reading order: pooling, objective, selection, search, fit, reweighting, diagnostics,
public_noise, report, spec, blend, tables, risk_tables.

Open: blend, fit, objective, pooling, reweighting, search, tables.
"""
