"""Models and their training; the only packages that import torch and transformers.

In the order in which they may import: settings, parts, variant, data, network, training,
pretraining, jobs, tuning. ``variants/`` has one TOML file per variant, ``encoders/`` the bundled
encoder.
"""
