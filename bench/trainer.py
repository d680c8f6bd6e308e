"""What a peer gives to be measured: steps, a fresh start, and a number of parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.workloads import Workload


@dataclass(frozen=True)
class Trainer:
    """step(i): one optimizer step on batch i, finished when it returns the loss. reset(): weights
    and optimizer as at the start, so that long runs stay clear of memorised data and denormals.
    """

    step: Callable[[int], Any]
    reset: Callable[[], None]


def check_parameters(work: Workload, found: int) -> None:
    """All peers train the same architecture."""
    if found != work.parameters:
        raise AssertionError(f"{work.name}: {found} parameters, expected {work.parameters}")
