"""A model's training step on a CPU, with fewer passes over memory: the same numbers, sooner.

`kernels` are the loops, `functions` gives them gradients, `install` puts them into a model.
"""
