"""A kernel as text: what goes in is a `Template`, what comes out is one readable Python file.

The file holds a signature comment, a docstring, imports, module-level lines and one function
`name(lo, hi, tid, *symbols, *sizes, *params)` that does the indices lo..hi-1 of the launch's trip
count.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nnjit.kernels.target import DTYPES, storage

INDENT = "    "


@dataclass(frozen=True)
class Template:
    """One kernel before it is text.

    params are (name, dtype code) pairs; trip, scratch (bytes per thread) and grain, the least
    number of trip indices worth a chunk, are ints or expressions of the symbols. stages: equal
    parts of the trip, as trip is given; all threads have done one before any begins the next. A
    kernel that has several takes any run of indices in order. sizes are (name, value) pairs:
    numbers that are known, and passed all the same, so that one kernel serves many.
    """

    name: str
    doc: str
    imports: tuple[str, ...]
    symbols: tuple[str, ...]
    params: tuple[tuple[str, str], ...]
    body: tuple[str, ...]
    trip: int | str
    scratch: int | str = 0
    grain: int | str = 1
    stages: int | str = 1
    sizes: tuple[tuple[str, int], ...] = ()


def signature(t: Template) -> str:
    """'void(int64, ..., *float32)': lo, hi, tid, symbols and sizes as int64, then the pointers."""
    numbers = ["int64"] * (3 + len(t.symbols) + len(t.sizes))
    return f"void({', '.join(numbers + ['*' + storage(code) for _, code in t.params])})"


@functools.lru_cache(maxsize=1024)
def render(t: Template) -> str:
    """The whole file. Its first line is the signature, which the compile worker reads back."""
    names = ["lo", "hi", "tid", *t.symbols, *(name for name, _ in (*t.sizes, *t.params))]
    head, tail = f"def {t.name}(", "):"
    line = head + ", ".join(names) + tail
    if len(line) > 100:
        line = "\n".join([head, *folded(names, levels=2), tail])
    doc = t.doc.strip().replace("\\", "\\\\")
    imports = [f"from numpy import {storage(c)} as {c}" for c in used_codes(t)]
    return "\n".join([
        f"# signature: {signature(t)}", f'"""{doc}"""', *imports, *t.imports, "", "",
        line, *(INDENT + s if s else "" for s in t.body or ("return",)), "",
    ])  # fmt: skip


def used_codes(t: Template) -> list[str]:
    """The dtype codes that the text calls, such as f4(0.5)."""
    called = set(re.findall(r"\b([a-z]\d)\(", "\n".join((*t.imports, *t.body))))
    return [code for code in DTYPES if code in called]


def folded(parts: Sequence[str], most: int = 100, levels: int = 1) -> list[str]:
    """A long argument list in lines of at most `most` columns, `levels` blocks deep."""
    start = INDENT * levels
    lines, line = [], start
    for part in parts:
        if len(line) + len(part) + 2 > most and line != start:
            lines.append(line)
            line = start
        line += f"{part}," if line == start else f" {part},"
    return [*lines, line]


def indent(lines: list[str] | tuple[str, ...], levels: int = 1) -> list[str]:
    """The lines, `levels` blocks deeper."""
    return [INDENT * levels + line if line else line for line in lines]
