"""Optimizers with Keras' names, defaults and formulas; `schedules` has the learning rates that
change.
"""

from nnjit import schedules
from nnjit.optimizers.adam import Adam, Adamax, AdamW, Nadam
from nnjit.optimizers.base import REGISTRY, Optimizer, get
from nnjit.optimizers.gradient import SGD, Adadelta, Adagrad, Lion, RMSprop

__all__ = [
    "REGISTRY", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "Nadam",
    "Optimizer", "RMSprop", "get", "schedules",
]  # fmt: skip
