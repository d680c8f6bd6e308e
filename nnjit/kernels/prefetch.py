"""A request for memory that is used soon: it changes no result and may name any place."""

from __future__ import annotations

from collections.abc import Callable

from nnjit.kernels import target


def prefetch(*, elements: int, dtype: str = "f4", write: bool = False) -> Callable[..., None]:
    """A function (a, aoff) that asks for the cache lines of a[aoff : aoff + elements].

    write: they will be written. Un-jitted it does nothing.
    """
    if target.jitting:
        from nnjit.kernels.tile_llvm import prefetch_intrinsic

        return prefetch_intrinsic(elements, dtype, write)
    return lambda a, aoff: None
