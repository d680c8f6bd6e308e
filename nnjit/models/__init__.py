"""Models: Sequential, and Model for graphs of layers and for subclasses."""

from nnjit.models.base import Model
from nnjit.models.sequential import Sequential

__all__ = ["Model", "Sequential"]
