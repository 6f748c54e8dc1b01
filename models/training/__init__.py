"""The training loop, the optimiser step, checkpoints, mixed precision; the linear learner.

Rooms in reading order: control, hardware, checkpoints, ema, step, memory, loop, linear.

Open: control, hardware, checkpoints, ema, step, memory, loop, linear.
"""
