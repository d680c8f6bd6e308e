"""The asking tile as a Numba intrinsic. Compile workers only."""

from __future__ import annotations

from typing import Any

from numba import types

from nnjit.kernels.asking_tile import SHIFT
from nnjit.kernels.tile import TileShape
from nnjit.kernels.tile_llvm import ELEMENT, POINTERS, TileWriter, constant, named


def asking_intrinsic(s: TileShape, asks: int, level: int) -> Any:
    """See `asking_tile.asking_tile`."""
    sources = [f"p{i}" for i in range(asks)]
    names = s.arguments() + [n for p in sources for n in (p, p + "off")] + ["pace"]
    pointer = types.CPointer(ELEMENT[s.dtype][1])
    kinds = [pointer if n in POINTERS or n in sources else types.int64 for n in names]
    sig = types.void(*kinds)

    def codegen(cx: Any, builder: Any, _sig: Any, args: Any) -> Any:
        AskingWriter(s, builder, dict(zip(names, args, strict=True)), sources, level).write()
        return cx.get_dummy_value()

    return named(names, lambda *_given: (sig, codegen))


class AskingWriter(TileWriter):
    """Writes a tile that asks for a line of each source at each step of the reduction."""

    def __init__(
        self, shape: TileShape, builder: Any, args: dict[str, Any], sources: list[str], level: int
    ):
        super().__init__(shape, builder, args)
        self.sources, self.level = sources, level

    def loop(self, count: Any, acc: Any, body: Any, guarded: bool = False) -> Any:
        if guarded:  # the outer loop
            return super().loop(count, acc, body, guarded)

        def asking(k: Any, acc: Any) -> Any:
            at = self.b.ashr(self.b.mul(k, self.args["pace"]), constant(SHIFT))
            for p in self.sources:
                self.v.ask_for(self.b.gep(self.base(p), [at]), level=self.level)
            return body(k, acc)

        return super().loop(count, acc, asking)
