"""The training loop, the optimiser step, checkpoints, mixed precision; the learners of n-grams.

Rooms in reading order: control, ranks, hardware, compiling, sharding, optimizer, checkpoints, ema,
step, memory, ahead, feed, loop, predictor, linear, linear_file, mlp, mlp_file, cross_fit.

Open: control, ranks, hardware, compiling, sharding, optimizer, checkpoints, ema, step, memory,
ahead, loop, predictor, linear, linear_file, mlp, mlp_file, cross_fit.
"""
