"""Models: Sequential, Model for graphs of layers and for subclasses; load_model, clone_model."""

from typing import Any

from nnjit.models.base import Model
from nnjit.models.sequential import Sequential

__all__ = ["Model", "Sequential", "clone_model", "load_model"]


def __getattr__(name: str) -> Any:
    if name in ("clone_model", "load_model"):  # saving needs the models above
        from nnjit import saving

        return getattr(saving, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
