"""Small pieces of kernel text: extents, literals, casts, loads and stores."""

from __future__ import annotations

import ast
import functools
import math
import re
from collections.abc import Sequence

from nnjit.bfloat16 import to_bits
from nnjit.kernels.target import CODES
from nnjit.spec import Dim, Extent


def mangle(symbol: str) -> str:
    """A run-time symbol as a name that no local, function or keyword has: batch, n_time."""
    return symbol if symbol == "batch" else f"n_{symbol}"


def unmangle(name: str) -> str:
    """The symbol behind a name in kernel text."""
    return name.removeprefix("n_")


def parse_dim(text: int | str) -> Dim | None:
    """A template's 'batch * 26' as a dim; None where the expression is no product."""
    if isinstance(text, int):
        return text
    if not re.fullmatch(r"\w+( \* \w+)*", text):
        return None
    out: Dim = 1
    for word in text.split(" * "):
        out = out * (int(word) if word.isdigit() else Extent(1, (unmangle(word),)))
    return out


def unmangle_all(text: str) -> str:
    """An expression over the symbols themselves."""
    return re.sub(r"\bn_(?=\w)", "", text)


def times(a: Dim, b: Dim) -> Dim:
    """a * b, 0 if either is."""
    return 0 if a == 0 or b == 0 else a * b


def dim_text(dim: Dim) -> str:
    """'26 * batch'; a plain number for an int."""
    if isinstance(dim, int):
        return str(dim)
    head = [] if dim.factor == 1 else [str(dim.factor)]
    return " * ".join([*head, *map(mangle, dim.symbols)])


def text_of(d: Dim) -> int | str:
    """A dim as templates take it: an int, or text over the symbols."""
    return d if isinstance(d, int) else dim_text(d)


def int_of(d: Dim) -> int:
    """A dim that is sure to be a number."""
    assert isinstance(d, int), d
    return d


def sum_text(terms: Sequence[tuple[str, Dim]]) -> str:
    """Terms (variable or '', coefficient) as 'i * 32 + j'; zero terms left out, '0' if none is
    left.
    """
    out = ""
    for name, factor in terms:
        if factor == 0:
            continue
        negative = (factor.factor if isinstance(factor, Extent) else factor) < 0
        size = factor * -1 if negative else factor
        if not name:
            text = dim_text(size)
        else:
            text = name if size == 1 else f"{name} * {dim_text(size)}"
        out += (" - " if negative else " + ") + text if out else ("-" if negative else "") + text
    return out or "0"


def literal(value: object, dtype: str) -> str:
    """A typed number: f4(0.5), i4(3), True. Infinities and NaN are names that `render` defines."""
    code = CODES[dtype]
    if dtype == "bool":
        return "True" if value else "False"
    if code == "b2":
        return f"b2({to_bits(value)})"
    if code in ("f4", "f8"):
        number = float(value)  # type: ignore[arg-type]
        if math.isnan(number):
            return f"{code}(nan)"
        if math.isinf(number):
            return f"{code}(inf)" if number > 0 else f"-{code}(inf)"
        import numpy as np

        short = repr(float(str(np.float32(number)))) if code == "f4" else repr(number)
        return f"{code}({short})"
    return f"{code}({int(value)})"  # type: ignore[call-overload]


@functools.lru_cache(maxsize=4096)
def tidy(line: str) -> str:
    """An assignment without the parentheses that Python does not need."""
    if "(" not in line or " = " not in line or re.search(r" (and|or) ", line):
        return line
    (statement,) = ast.parse(line.strip()).body
    if not isinstance(statement, ast.Assign) or isinstance(statement.value, ast.Tuple):
        return line
    return line[: len(line) - len(line.lstrip())] + ast.unparse(statement)


def load(name: str, index: str, dtype: str) -> str:
    """An element of a buffer as a value: a bool is stored as one byte."""
    return f"({name}[{index}] != 0)" if dtype == "bool" else f"{name}[{index}]"


def stored(value: str, dtype: str) -> str:
    """A value as what a buffer of this dtype holds."""
    return f"u1(1) if {value} else u1(0)" if dtype == "bool" else value


def cast(value: str, source: str, target: str) -> str:
    """A value of dtype `source` as dtype `target`."""
    if source == target:
        return value
    if source == "bfloat16":
        return cast(f"bf16_load({value})", "float32", target)
    if target == "bfloat16":
        return f"bf16_round({cast(value, source, 'float32')})"
    if target == "bool":
        return f"({value} != 0)"
    return f"{CODES[target]}({value})"


def math_imports(lines: Sequence[str]) -> list[str]:
    """Import lines for the math functions, NaN and infinity that the text uses."""
    text = "\n".join(lines)
    names = sorted(set(re.findall(r"\b([a-z][a-z0-9_]*_f[48])\(", text)))
    philox = [n for n in names if n.startswith("philox")]
    plain = [n for n in names if not n.startswith("philox")]
    out = (
        [f"from math import {', '.join(w)}"] if (w := re.findall(r"\b(?:inf|nan)\b", text)) else []
    )
    if out:
        out = [f"from math import {', '.join(sorted(set(w)))}"]
    if halves := sorted(set(re.findall(r"\bbf16_(?:load|round)\b", text))):
        out.append(f"from nnjit.kernels.bf16 import {', '.join(halves)}")
    if plain:
        out.append(f"from nnjit.kernels.math import {', '.join(plain)}")
    if philox:
        out.append(f"from nnjit.kernels.philox import {', '.join(philox)}")
    return out


def used_symbols(lines: Sequence[str], symbols: Sequence[str]) -> tuple[str, ...]:
    """The mangled names of the symbols that the text uses, in order."""
    words = set(re.findall(r"\w+", "\n".join(lines)))
    return tuple(m for m in map(mangle, symbols) if m in words)
