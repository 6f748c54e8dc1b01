"""The middle floor: what learns, and how it is trained.

In the order in which they may import: settings, parts, variant, data, network, training,
pretraining, jobs, tuning. ``variants/`` holds one TOML file each, ``encoders/`` the encoder that
ships.
"""
