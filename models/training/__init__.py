"""The training loop, one step of it, checkpoints and hardware; the linear learner.

Rooms in reading order: control, hardware, checkpoints, ema, step, memory, loop, linear.

Open: control, hardware, checkpoints, ema, step, memory, loop, linear.
"""
