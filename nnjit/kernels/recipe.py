"""What a contraction template gives its caller: kernels in order, what each takes, and the buffers
between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nnjit.kernels.template import Template
from nnjit.kernels.tile import FINALS

MOST_ASKED = 4  # arrays that a kernel asks for before its tail reads or writes them


@dataclass(frozen=True)
class Step:
    """One launch: the kernel, and for each of its params the role or temporary buffer that it
    takes.
    """

    template: Template
    args: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """Launches in order. Roles: a, b, bias, mask, residual, out, the names of an epilogue's extra
    params, scratch.

    temps: name -> (elements, dtype code); elements is an int or an expression of the symbols. A
    step whose template name starts with "pack_" depends on the operand b alone, so equal ones can
    be shared. The operand out must not share memory with any other; each step overwrites all that
    it writes, so nothing needs to be cleared.
    """

    steps: tuple[Step, ...]
    temps: dict[str, tuple[int | str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Epilogue:
    """What follows a contraction while the result is in registers or in L1, in this order.

    bias: adds the param `bias`, one value per column. final: "store", "relu", "mask" (0 where not
    mask > 0), "mul" (times residual), "add" (plus residual) or "add_relu"; mask and residual are
    laid out like the result y. tail(index, column): lines that rewrite y[index] elementwise; they
    may read and write extra_params, (name, dtype code) pairs, at the text `index` (flat index of
    the element) or `column`. Where y is bfloat16 (b2) the tail finds the sums, float32, at
    scratch[at_sums + j] (`SUMS`) and writes y and the rest. imports: lines that the tail needs.
    beside: the dtype code of mask or residual, if it is not that of y. apart: y and what the tail
    writes may be what it reads, at the same place (parameters that an optimizer changes); it finds
    the sums in scratch, too.
    """

    bias: bool = False
    final: str = "store"
    tail: Callable[[str, str], list[str]] | None = None
    extra_params: tuple[tuple[str, str], ...] = ()
    imports: tuple[str, ...] = ()
    beside: str = ""
    apart: bool = False

    def __post_init__(self) -> None:
        if self.final not in FINALS:
            raise ValueError(f"Epilogue(final={self.final!r}): expected one of {', '.join(FINALS)}")

    @property
    def operand(self) -> str:
        """The role that the final reads: 'mask', 'residual' or ''."""
        if self.final == "mask":
            return "mask"
        return "residual" if self.final in ("mul", "add", "add_relu") else ""

    def inputs(self) -> tuple[str, ...]:
        """Roles read by the tile: bias, mask or residual."""
        return (("bias",) if self.bias else ()) + ((self.operand,) if self.operand else ())

    def params(self, dtype: str) -> tuple[tuple[str, str], ...]:
        """The inputs with their dtype codes, given that of y; a bias is not kept in bfloat16."""
        bias = (("bias", "f4" if dtype == "b2" else dtype),) if self.bias else ()
        return bias + (((self.operand, self.beside or dtype),) if self.operand else ())

    def tile_options(self) -> dict[str, str]:
        """The tile's init and final."""
        return {"init": "bias" if self.bias else "zero", "final": self.final}

    def tile_arguments(self, column: str, out: str) -> list[str]:
        """The tile's arguments for bias and mask or residual."""
        args = ["bias", column] if self.bias else []
        return args + ([self.operand, out] if self.operand else [])

    def lines(self, out: str, column: str, columns: int | str, sums: str = "") -> list[str]:
        """The tail as a loop over `columns` elements of a row, from y[out] and the column given.

        sums: where in scratch the row of sums starts, for a tail that reads them there.
        """
        if self.tail is None:
            return []
        at = f"{column} + j" if column else "j"
        inner = self.tail("q + j", at)
        start = [f"at_sums = {sums}"] if sums else []
        return [*start, f"q = {out}", f"for j in range({columns}):", *("    " + s for s in inner)]

    def asked(self, dtype: str) -> tuple[str, ...]:
        """Params of this dtype that the tail reads or writes at each element, y first."""
        if self.tail is None:
            return ()
        lines = "\n".join(self.tail("AT", "COLUMN"))
        params = (("y", dtype), *self.extra_params)
        return tuple(n for n, code in params if code == dtype and f"{n}[AT]" in lines)[:MOST_ASKED]

    def writes(self, name: str) -> bool:
        """Whether the tail writes this param."""
        return self.tail is not None and any(
            line.startswith(f"{name}[AT] =") for line in self.tail("AT", "COLUMN")
        )

    def pixels(self, out: str, count: int | str, columns: int) -> list[str]:
        """The tail over `count` neighbouring rows of `columns` elements, from y[out].

        One loop where no line reads at the column: LLVM unrolls short loops of a known length
        before it would vectorise them.
        """
        if self.tail is None:
            return []
        if any("COLUMN" in line for line in self.tail("q + j", "COLUMN")):
            start = [f"out = {out}", f"for m in range({count}):"]
            return [*start, *("    " + s for s in self.lines(f"out + m * {columns}", "", columns))]
        size = count * columns if isinstance(count, int) else f"({count}) * {columns}"
        return self.lines(out, "", size)


PLAIN = Epilogue()  # nothing follows
SUMS = "scratch[at_sums + j]"  # where the tail of a bfloat16 result finds element q + j
