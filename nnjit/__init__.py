"""nnjit: neural networks whose whole training step is compiled to readable Numba kernels.

Names resolve when they are first used, so `import nnjit` loads no compiler.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

MODULES = (
    "activations", "callbacks", "constraints", "initializers", "layers", "losses", "metrics",
    "models", "ops", "optimizers", "regularizers", "schedules",
)  # fmt: skip
NAMES = {
    "Input": "layers", "Layer": "layers", "Model": "models", "Sequential": "models",
    "Spec": "spec", "Variable": "layers", "datasets": "data", "function": "functional",
    "grad": "functional", "load_model": "saving", "load_source": "data", "register": "registry",
    "set_cache_dir": "config", "set_seed": "config", "set_threads": "config",
    "value_and_grad": "functional",
}  # fmt: skip

__all__ = [*MODULES, *NAMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return importlib.import_module(f"nnjit.{name}")
    if name not in NAMES:
        raise AttributeError(f"module 'nnjit' has no attribute {name!r}")
    module = importlib.import_module(f"nnjit.{NAMES[name]}")
    globals()[name] = value = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
