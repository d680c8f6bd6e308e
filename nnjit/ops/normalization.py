"""Normalisation: moments, and layer, RMS, batch and group normalisation with closed-form gradients.

The composites stay whole until after `grad`. What forward and backward have in common (means,
reciprocal deviations) is written in the same way in both, so that it becomes one value once equal
subexpressions are shared; the normalised values are not kept but computed anew.
"""

from __future__ import annotations

from typing import Any

from nnjit.errors import ShapeError
from nnjit.graph import Node, extent_node
from nnjit.ops.base import OPS, composite, fixed, promote
from nnjit.ops.elementwise import maximum, rsqrt, square, stop_gradient
from nnjit.ops.reduce import Axes, mean, reduced, sum, sum_to
from nnjit.ops.view import broadcast_to, reshape
from nnjit.spec import normal_axes, product, shape_text


def moments(x: Any, axis: Axes = None, keepdims: bool = False) -> tuple[Node, Node]:
    """The mean and the (biased) variance over axes (default all).

    Over the last axes a row is read twice, as it stays in the cache. Over others x is read once,
    for the sums of x - s and (x - s)**2; s is the mean of the first sample, so the variance keeps
    its digits where the mean is large: its relative error is at most a few epsilon per sample.
    """
    (x,) = promote(x, takes="float")
    axes = normal_axes(axis, x.rank, "moments")
    if not axes or axes == tuple(range(x.rank - len(axes), x.rank)):
        middle = mean(x, axes, True)
        variance = mean(square(x - middle), axes, True)
    else:
        first = x[tuple(slice(0, 1) if a == axes[0] else slice(None) for a in range(x.rank))]
        shift = stop_gradient(mean(first, axes, True))
        off = mean(x - shift, axes, True)
        middle = shift + off
        variance = maximum(mean(square(x - shift), axes, True) - square(off), 0)
    if keepdims:
        return middle, variance
    shape = reduced(x.shape, axes, False)
    return reshape(middle, shape), reshape(variance, shape)


# ---------------------------------------------------------------------------- within each sample
def _layer_parts(x: Node, axes: tuple[int, ...], epsilon: float) -> tuple[Node, Node]:
    """x minus its mean, and the reciprocal of its deviation."""
    centered = x - mean(x, axes, True)
    return centered, rsqrt(mean(square(centered), axes, True) + epsilon)


def _layer(x: Node, gamma: Node, beta: Node, axes: tuple[int, ...], epsilon: float) -> Node:
    centered, scale = _layer_parts(x, axes, epsilon)
    return centered * scale * gamma + beta


def _layer_grad(dy: Node, y: Node, x: Node, gamma: Node, beta: Node) -> tuple[Node, Node, Node]:
    axes = y.attrs["axes"]
    centered, scale = _layer_parts(x, axes, y.attrs["epsilon"])
    normal, g = centered * scale, dy * gamma
    along = mean(g * normal, axes, True)
    return (g - mean(g, axes, True) - normal * along) * scale, dy * normal, dy


def _rms_scale(x: Node, axes: tuple[int, ...], epsilon: float) -> Node:
    return rsqrt(mean(square(x), axes, True) + epsilon)


def _rms(x: Node, gamma: Node, axes: tuple[int, ...], epsilon: float) -> Node:
    return x * _rms_scale(x, axes, epsilon) * gamma


def _rms_grad(dy: Node, y: Node, x: Node, gamma: Node) -> tuple[Node, Node]:
    axes = y.attrs["axes"]
    scale = _rms_scale(x, axes, y.attrs["epsilon"])
    normal, g = x * scale, dy * gamma
    return (g - normal * mean(g * normal, axes, True)) * scale, dy * normal


composite(
    "layer_normalization", _layer, _layer_grad,
    doc="(x - mean) / sqrt(variance + epsilon) * gamma + beta, mean and variance over axes",
)  # fmt: skip
composite(
    "rms_normalization", _rms, _rms_grad,
    doc="x / sqrt(mean(x**2) + epsilon) * gamma, the mean over axes",
)  # fmt: skip


def layer_normalization(
    x: Any, gamma: Any = 1.0, beta: Any = 0.0, axis: Axes = -1, epsilon: float = 1e-3
) -> Node:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, mean and variance over `axis`.

    gamma and beta broadcast against x.
    """
    x, gamma, beta = promote(x, gamma, beta, takes="float")
    axes = normal_axes(axis, x.rank, "layer_normalization")
    return OPS["layer_normalization"](x, gamma, beta, axes=axes, epsilon=float(epsilon))


def rms_normalization(x: Any, scale: Any = 1.0, axis: Axes = -1, epsilon: float = 1e-6) -> Node:
    """x / sqrt(mean(x**2) + epsilon) * scale, the mean over `axis`. scale broadcasts against x."""
    x, scale = promote(x, scale, takes="float")
    axes = normal_axes(axis, x.rank, "rms_normalization")
    return OPS["rms_normalization"](x, scale, axes=axes, epsilon=float(epsilon))


def unit_normalization(x: Any, axis: Axes = -1, epsilon: float = 1e-12) -> Node:
    """x / max(|x|, epsilon), |x| the square root of the sum of squares over `axis`."""
    (x,) = promote(x, takes="float")
    return x * rsqrt(maximum(sum(square(x), axis, True), epsilon**2))


# ------------------------------------------------------------------------------- over the batch
def _batch(x: Node, gamma: Node, beta: Node, middle: Node, variance: Node, epsilon: float) -> Node:
    return (x - middle) * (rsqrt(variance + epsilon) * gamma) + beta


def _batch_grad(
    dy: Node, y: Node, x: Node, gamma: Node, beta: Node, middle: Node, variance: Node
) -> tuple[Node | None, ...]:
    """Two sums; then dx = dy * scale + (x - mean) * p + q with p and q for each channel."""
    shape = middle.shape
    inverse = rsqrt(variance + y.attrs["epsilon"])
    scale, centered = inverse * gamma, x - middle
    total, along = sum_to(dy, shape), sum_to(dy * centered, shape) * inverse
    ones = zip(x.shape, (1,) * (x.rank - len(shape)) + shape, strict=True)
    count = extent_node(product([d for d, kept in ones if kept == 1]), x.dtype)
    p, q = -(scale * inverse * along) / count, -(scale * total) / count
    return dy * scale + (centered * p + q), along, total, None, None


composite(
    "batch_normalization", _batch, _batch_grad,
    doc="(x - mean) / sqrt(variance + epsilon) * gamma + beta, mean and variance being x's own",
)  # fmt: skip


def batch_normalization(
    x: Any,
    mean: Any,
    variance: Any,
    offset: Any = 0.0,
    scale: Any = 1.0,
    epsilon: float = 1e-3,
    own: bool = False,
) -> Node:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset; all broadcast against x.

    own: mean and variance are those of x itself, as `moments` gives them (with extent 1 where x has
    been reduced). Then they get no gradient: their part is in the gradient of x, in closed form.
    """
    x, mean, variance, offset, scale = promote(x, mean, variance, offset, scale, takes="float")
    if own:
        op = OPS["batch_normalization"]
        return op(x, scale, offset, mean, variance, epsilon=float(epsilon))
    return _batch(x, scale, offset, mean, variance, float(epsilon))


# ------------------------------------------------------------------------- over groups of channels
def _shared(v: Node, groups: int, axis: int) -> Node:
    """The mean of v over the channels of a group, at each of them; v has no extent but the first
    and that of channels.
    """
    folded = reshape(v, (v.shape[0], groups, fixed("groups", "channels", v.shape[axis]) // groups))
    return reshape(broadcast_to(mean(folded, -1, True), folded.shape), v.shape)


def _group_parts(x: Node, groups: int, axis: int, epsilon: float) -> tuple[Node, Node]:
    """Mean and reciprocal deviation of each group, laid out for each channel.

    Each channel is summed by itself, so that loops run over neighbours in memory.
    """
    middle, variance = moments(x, [a for a in range(1, x.rank) if a != axis], keepdims=True)
    center = _shared(middle, groups, axis)
    spread = _shared(variance + square(middle - center), groups, axis)
    return center, rsqrt(spread + epsilon)


def _group(x: Node, gamma: Node, beta: Node, groups: int, axis: int, epsilon: float) -> Node:
    center, inverse = _group_parts(x, groups, axis, epsilon)
    return (x - center) * (inverse * gamma) + beta


def _group_grad(dy: Node, y: Node, x: Node, gamma: Node, beta: Node) -> tuple[Node, Node, Node]:
    groups, axis = y.attrs["groups"], y.attrs["axis"]
    center, inverse = _group_parts(x, groups, axis, y.attrs["epsilon"])
    centered, shape = x - center, center.shape
    total, along = sum_to(dy, shape), sum_to(dy * centered, shape) * inverse
    rest = [d for a, d in enumerate(x.shape) if a not in (0, axis)]
    count = extent_node(product(rest), x.dtype)
    p = -(square(inverse) * _shared(along * gamma, groups, axis)) / count
    q = -(inverse * _shared(total * gamma, groups, axis)) / count
    return dy * (inverse * gamma) + (centered * p + q), along, total


composite(
    "group_normalization", _group, _group_grad,
    doc="(x - mean) / sqrt(variance + epsilon) * gamma + beta for groups of channels of a sample",
)  # fmt: skip


def group_normalization(
    x: Any, groups: int, gamma: Any = 1.0, beta: Any = 0.0, axis: int = -1, epsilon: float = 1e-3
) -> Node:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta; mean and variance over all axes but the
    first, for each of `groups` groups of neighbours along `axis` apart. gamma and beta broadcast
    against x.
    """
    x, gamma, beta = promote(x, gamma, beta, takes="float")
    (axis,) = normal_axes(axis, x.rank, "group_normalization")
    channels = fixed("group_normalization", "channels", x.shape[axis])
    if axis == 0 or groups < 1 or channels % groups:
        raise ShapeError(
            f"group_normalization: groups={groups} on axis {axis} of {shape_text(x.shape)}"
        )
    op = OPS["group_normalization"]
    return op(x, gamma, beta, groups=int(groups), axis=axis, epsilon=float(epsilon))
