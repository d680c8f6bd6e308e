"""Training: the loop, its callbacks, checkpoints of a run, history and progress."""
