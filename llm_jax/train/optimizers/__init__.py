"""Optimizers, one file each, and what is common to all: clipping, the schedule, the mask of decay.

An optimizer is a function (optim, rate, specs) -> optax.GradientTransformation: the whole update
after clipping, with its learning rate and its weight decay. `optim` is the config, `rate` the
schedule, `specs` the tree of the parameters' `Spec`s.
"""
