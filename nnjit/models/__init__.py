"""Models: Sequential, and Model for graphs of layers and for subclasses; load_model."""

from typing import Any

from nnjit.models.base import Model
from nnjit.models.sequential import Sequential

__all__ = ["Model", "Sequential", "load_model"]


def __getattr__(name: str) -> Any:
    if name == "load_model":  # saving needs the models above
        from nnjit.saving import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
