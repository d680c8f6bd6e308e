"""Windows over (height, width) of NHWC values: their geometry, pooling, and its gradients.

strides, dilation, window are pairs; padding is ((top, bottom), (left, right)). Heights, widths and
channels are known when the graph is built; the batch may be a run-time extent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node
from nnjit.ops.base import computed, fixed, no_gradient, whole_number
from nnjit.ops.elementwise import cast, equal, where
from nnjit.ops.view import cut, pad
from nnjit.spec import Dim, Spec, shape_text

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


# ---------------------------------------------------------------------------------------- geometry
def pair(where_: str, option: str, value: Any, n: int, low: int = 1) -> tuple[int, ...]:
    """One number of at least `low` for all `n` axes, or one per axis."""
    values = [value] * n if not isinstance(value, Sequence) else list(value)
    if len(values) != n:
        raise ArgumentError(f"{where_}: {option}={value!r}: expected one number or {n}")
    return tuple(whole_number(where_, option, v, low) for v in values)


def padding_of(
    name: str, padding: Any, sizes: Sequence[int], window: Sequence[int], strides: Sequence[int]
) -> tuple[Pair, ...]:
    """'valid', 'same' (as Keras: the odd element goes behind), a number, or (low, high) per axis.

    window: extents with dilation counted in.
    """
    if padding == "valid":
        return tuple((0, 0) for _ in sizes)
    if padding == "same":
        out = []
        for n, k, s in zip(sizes, window, strides, strict=True):
            total = k - s if n % s == 0 else k - n % s
            total = total if total > 0 else 0
            out.append((total // 2, total - total // 2))
        return tuple(out)
    if isinstance(padding, str):
        raise ArgumentError(
            f"{name}: padding={padding!r}: expected 'valid', 'same', a number or pairs of numbers"
        )
    given = [padding] * len(sizes) if not isinstance(padding, Sequence) else list(padding)
    if len(given) != len(sizes):
        raise ArgumentError(f"{name}: padding={padding!r}: expected {len(sizes)} entries")
    both = [(p, p) if not isinstance(p, Sequence) else tuple(p) for p in given]
    if any(len(p) != 2 for p in both):
        raise ArgumentError(f"{name}: padding={padding!r}: expected (low, high) per axis")
    return tuple((whole_number(name, "padding", a, 0), whole_number(name, "padding", b, 0))
                 for a, b in both)  # fmt: skip


def places(name: str, what: str, n: int, window: int, stride: int, padding: Pair) -> int:
    """How many windows fit along an axis."""
    room = n + padding[0] + padding[1] - window
    if room < 0:
        raise ShapeError(
            f"{name}: a window of {window} does not fit into {what} {n} with padding {padding}"
        )
    return room // stride + 1


def image(name: str, x: Spec, what: str = "x") -> tuple[Dim, int, int, int]:
    """(batch, height, width, channels), the last three as numbers."""
    if x.rank != 4:
        raise ShapeError(
            f"{name}: {what} of shape (batch, height, width, channels) expected, "
            f"got {shape_text(x.dims)}"
        )
    n, h, w, c = x.dims
    where_ = f"{name}: {what} {shape_text(x.dims)}"
    return (
        n,
        fixed(where_, "the height", h),
        fixed(where_, "the width", w),
        fixed(where_, "the number of channels", c),
    )


def taps(
    out: Sequence[int], window: Pair, strides: Pair, dilation: Pair = (1, 1)
) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
    """For each element (i, j) of a window: where it reads the padded image, for all windows."""
    (h, w), (sh, sw), (dh, dw) = out, strides, dilation
    for i in range(window[0]):
        for j in range(window[1]):
            rows = slice(i * dh, i * dh + (h - 1) * sh + 1 if h else i * dh, sh)
            columns = slice(j * dw, j * dw + (w - 1) * sw + 1 if w else j * dw, sw)
            yield i, j, (slice(None), rows, columns)


def padded(x: np.ndarray, padding: Padding, value: Any = 0) -> np.ndarray:
    """x with `value` around height and width; a negative padding behind adds nothing, as no window
    reaches what it leaves out.
    """
    around = [(low, max(high, 0)) for low, high in padding]
    return np.pad(x, ((0, 0), *around, (0, 0)), constant_values=value)


def unpadded(x: np.ndarray, padding: Padding, height: int, width: int) -> np.ndarray:
    """What `padded` was given."""
    (top, _), (left, _) = padding
    return x[:, top : top + height, left : left + width]


# ------------------------------------------------------------------------------------ the pool ops
def _pool_rule(name: str) -> Any:
    def rule(x: Spec, *, window: Pair, strides: Pair, padding: Padding, **_: Any) -> Spec:
        n, h, w, c = image(name, x)
        for p, k in zip(padding, window, strict=True):
            if k <= p[0] or k <= p[1]:
                raise ShapeError(f"{name}: padding {p} leaves windows of {k} without an element")
        return x.with_shape([
            n, places(name, "height", h, window[0], strides[0], padding[0]),
            places(name, "width", w, window[1], strides[1], padding[1]), c,
        ])  # fmt: skip

    return rule


def _index_rule(x: Spec, *, window: Pair, strides: Pair, padding: Padding) -> Spec:
    out = _pool_rule("max_pool_index")(x, window=window, strides=strides, padding=padding)
    return out.with_dtype("uint8" if window[0] * window[1] <= 256 else "int32")


def _grad_rule(dy: Spec, *index: Spec, height: int, width: int, **attrs: Any) -> Spec:
    n, _, _, c = image("pool gradient", dy)
    want = _pool_rule("pool gradient")(Spec((n, height, width, c), dy.dtype), **attrs)
    if want != dy or any(i.dims != dy.dims for i in index):
        raise ShapeError(f"pool gradient: {want} expected for {height} x {width}, got {dy}")
    return dy.with_shape([n, height, width, c])


def _views(x: np.ndarray, m: Any, window: Pair, strides: Pair) -> np.ndarray:
    """The padded image as (window element, batch, rows, columns, channels)."""
    return np.stack([x[at] for _, _, at in taps(m.shape[1:3], window, strides)])


def _lowest(dtype: np.dtype) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _max_numpy(m: Any, x: np.ndarray, window: Pair, strides: Pair, padding: Padding) -> np.ndarray:
    return _views(padded(x, padding, _lowest(x.dtype)), m, window, strides).max(axis=0)


def _index_numpy(
    m: Any, x: np.ndarray, window: Pair, strides: Pair, padding: Padding
) -> np.ndarray:
    values = _views(padded(x, padding, _lowest(x.dtype)), m, window, strides)
    real = _views(padded(np.ones(x.shape, bool), padding), m, window, strides)
    won = (values == values.max(axis=0)) | (values != values)
    return np.argmax(won & real, axis=0).astype(m.dtype)


def _max_grad_numpy(
    m: Any, dy: np.ndarray, index: np.ndarray, window: Pair, strides: Pair, padding: Padding,
    height: int, width: int,
) -> np.ndarray:  # fmt: skip
    dx = padded(np.zeros(m.shape, dy.dtype), padding)
    for i, j, at in taps(dy.shape[1:3], window, strides):
        dx[at] += np.where(index == i * window[1] + j, dy, 0)
    return unpadded(dx, padding, height, width)


def _counts(
    m_shape: Sequence[int], size: Pair, window: Pair, strides: Pair, padding: Padding, all_: bool
) -> np.ndarray:
    """How many elements each window averages over: (1, rows, columns, 1)."""
    real = padded(np.ones((1, *size, 1)), padding, float(all_))
    return sum(real[at] for _, _, at in taps(m_shape[1:3], window, strides))  # type: ignore


def _avg_numpy(
    m: Any, x: np.ndarray, window: Pair, strides: Pair, padding: Padding, count_include_pad: bool
) -> np.ndarray:
    counts = _counts(m.shape, x.shape[1:3], window, strides, padding, count_include_pad)  # type: ignore
    return _views(padded(x, padding), m, window, strides).sum(axis=0) / counts


def _avg_grad_numpy(
    m: Any, dy: np.ndarray, window: Pair, strides: Pair, padding: Padding, count_include_pad: bool,
    height: int, width: int,
) -> np.ndarray:  # fmt: skip
    counts = _counts(dy.shape, (height, width), window, strides, padding, count_include_pad)
    dx = padded(np.zeros(m.shape, dy.dtype), padding)
    for _, _, at in taps(dy.shape[1:3], window, strides):
        dx[at] += dy / counts
    return unpadded(dx, padding, height, width)


def _geometry(node: Node, *more: str) -> dict[str, Any]:
    return {k: node.attrs[k] for k in ("window", "strides", "padding", *more)}


def _max_grad(dy: Node, y: Node, x: Node) -> Node:
    same = _geometry(y)
    return _max_pool_grad(
        dy, _max_pool_index(x, **same), **same, height=x.shape[1], width=x.shape[2]
    )


def _chosen(dx: Node, y: Node, dy: Node, index: Node) -> tuple[Node, None]:
    """The gradient of max_pool_grad: of dx, the element that each window chose."""
    window, strides = y.attrs["window"], y.attrs["strides"]
    wide = pad(dx, [(0, 0), *y.attrs["padding"], (0, 0)])
    out: Any = 0
    place = cast(index, "int32")
    batch, channels = (0, wide.shape[0], 1), (0, wide.shape[3], 1)
    for i, j, (_, rows, columns) in taps(dy.shape[1:3], window, strides):  # type: ignore
        middle = [(r.start, r.stop, r.step) for r in (rows, columns)]
        part = cut(wide, [batch, *middle, channels])
        out = where(equal(place, i * window[1] + j), part, out)
    return out, None


def _avg_grad(dy: Node, y: Node, x: Node) -> Node:
    same = _geometry(y, "count_include_pad")
    return _avg_pool_grad(dy, **same, height=x.shape[1], width=x.shape[2])


def _flops(node: Node) -> Dim:
    """One per element of each window; gradients add each element once per window that has it."""
    small = node.inputs[0].spec.size if "height" in node.attrs else node.spec.size
    return small * (node.attrs["window"][0] * node.attrs["window"][1])


def _window_op(name: str, rule: Any, numpy: Any, grad: Any, doc: str) -> Any:
    return computed(name, "window", rule, numpy, grad, _flops, doc)


_window_op(
    "max_pool", _pool_rule("max_pool"), _max_numpy, _max_grad,
    "the largest element of each window; padding never wins, NaN does",
)  # fmt: skip
_max_pool_index = _window_op(
    "max_pool_index", _index_rule, _index_numpy, no_gradient,
    "the place of the first largest element in its window, row by row",
)  # fmt: skip
_max_pool_grad = _window_op(
    "max_pool_grad", _grad_rule, _max_grad_numpy, _chosen, "dy sent to the elements that won"
)
_avg_pool = _window_op(
    "avg_pool", _pool_rule("avg_pool"), _avg_numpy, _avg_grad, "the mean of each window"
)
_avg_pool_grad = _window_op(
    "avg_pool_grad", _grad_rule, _avg_grad_numpy,
    lambda dx, y, dy: _avg_pool(dx, **_geometry(y, "count_include_pad")),
    "dy spread over each window",
)  # fmt: skip
