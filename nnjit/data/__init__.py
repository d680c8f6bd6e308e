"""Data: sources (files to arrays), preparation (scaling, splits), checks, and batches for the
training loop.

Arrays come in, contiguous batches of the model's dtype go out. Nothing here knows about graphs or
devices. Names resolve when they are first used: training on arrays reads no files.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Dataset", "datasets", "load_source"]


def __getattr__(name: str) -> Any:
    if name == "datasets":
        return importlib.import_module("nnjit.data.datasets")
    if name in __all__:
        return getattr(importlib.import_module("nnjit.data.sources"), name)
    raise AttributeError(f"module 'nnjit.data' has no attribute {name!r}")
