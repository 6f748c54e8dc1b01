"""The training loop, a step, checkpoints, hardware; the linear learner."""
