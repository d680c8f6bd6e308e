"""Scaled dot-product attention: an op with two results, its gradient with three.

Values have shape (batch, time, heads, depth); a key and value head serves a group of query heads.
Kernels never make a value of queries x keys; `attention_plain` has the same in plain ops.

A query i of a causal attention sees the keys j <= i, counted from the first of both also where
there are more keys than queries, as in Keras and PyTorch. A query that sees no key, or whose scores
are all -inf, gets 0, its gradients are 0 and its log-sum-exp is -inf: what PyTorch gives, and Keras
where scores are asked for. NaN and inf spread as in softmax(scale * q @ k.T) @ v; those of a value
that a query does not see may reach it or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError, DTypeError, ShapeError
from nnjit.graph import Node
from nnjit.ops.attention_plain import lse_gradient, second_gradient
from nnjit.ops.base import as_node, family_member, fixed, promote, same_dtype
from nnjit.ops.elementwise import cast
from nnjit.ops.view import reshape
from nnjit.spec import Dim, Spec, product, shape_text

RESULTS = ("out", "lse")
GRADIENTS = ("dq", "dk", "dv")


# ------------------------------------------------------------------------------------------- rules
def _check(q: Spec, k: Spec, v: Spec, mask: Sequence[Spec]) -> None:
    shapes = " and ".join(shape_text(x.dims) for x in (q, k, v))
    if not q.rank == k.rank == v.rank == 4:
        raise ShapeError(
            f"attention: query, key and value of shape (batch, time, heads, depth) expected, "
            f"got {shapes}"
        )
    if q.dims[0] != k.dims[0] or k.dims[:3] != v.dims[:3] or q.dims[3] != k.dims[3]:
        raise ShapeError(
            f"attention: {shapes}: one batch, one depth of query and key, and one time and heads "
            "of key and value expected"
        )
    for what, dim in (("depth", q.dims[3]), ("depth of the value", v.dims[3])):
        fixed("attention", f"the {what}", dim)
    heads, own = (fixed("attention", "the number of heads", x.dims[2]) for x in (q, k))
    if own == 0 or heads % own:
        raise ShapeError(
            f"attention: {heads} query heads do not divide into {own} key and value heads"
        )
    for m in mask:
        _check_mask(m, (q.dims[0], heads, q.dims[1], k.dims[1]))


def _check_mask(mask: Spec, whole: tuple[Dim, ...]) -> None:
    if mask.dtype != "bool":
        raise DTypeError(f"attention: a bool mask expected, got {mask.dtype}")
    fits = mask.rank == 4 and all(m in (1, d) for m, d in zip(mask.dims, whole, strict=True))
    if not fits:
        raise ShapeError(
            f"attention: a mask that broadcasts to (batch, heads, queries, keys) = "
            f"{shape_text(whole)} expected, got {shape_text(mask.dims)}"
        )


def _rule(q: Spec, k: Spec, v: Spec, *mask: Spec, scale: float, causal: bool, result: str) -> Spec:
    _check(q, k, v, mask)
    last = (v.dims[3],) if result == "out" else ()
    return Spec((*q.dims[:3], *last), same_dtype("attention", (q, k, v)))


def _grad_rule(
    q: Spec, k: Spec, v: Spec, *rest: Spec, scale: float, causal: bool, result: str
) -> Spec:
    *mask, out, lse, dout = rest
    if dout != out or out != _rule(q, k, v, *mask, scale=scale, causal=causal, result="out"):
        raise ShapeError(f"attention_grad: {out} and {dout} are no results of {q}, {k} and {v}")
    if lse != _rule(q, k, v, *mask, scale=scale, causal=causal, result="lse"):
        raise ShapeError(f"attention_grad: {lse} is no log-sum-exp of {q} and {k}")
    return {"dq": q, "dk": k, "dv": v}[result]


# ----------------------------------------------------------------------------------- NumPy meaning
def _heads_first(x: np.ndarray, heads: int) -> np.ndarray:
    """(batch, time, own heads, k) as (batch, heads, time, k)."""
    return np.repeat(x.transpose(0, 2, 1, 3), heads // x.shape[2], axis=1)


def _heads_last(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    batch, time, own, depth = like.shape
    return x.reshape(batch, own, x.shape[1] // own, time, depth).sum(2).transpose(0, 2, 1, 3)


def _scores(
    q: np.ndarray, k: np.ndarray, mask: Sequence[np.ndarray], scale: float, causal: bool
) -> np.ndarray:
    heads = q.shape[2]
    s = _heads_first(q, heads) @ _heads_first(k, heads).swapaxes(2, 3) * q.dtype.type(scale)
    for m in mask:
        s = np.where(m, s, s.dtype.type(-np.inf))
    if causal:
        s = np.where(np.tri(*s.shape[2:]) > 0, s, s.dtype.type(-np.inf))
    return s


def _weights(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Softmax and log-sum-exp over the last axis; 0 and -inf where all scores are -inf."""
    top = s.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(s - np.where(top == -np.inf, 0, top))
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total), (np.log(total) + top)[..., 0]


def _numpy(
    m: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, *mask: np.ndarray, scale: float,
    causal: bool, result: str,
) -> np.ndarray:  # fmt: skip
    p, lse = _weights(_scores(q, k, mask, scale, causal))
    if result == "lse":
        return lse.transpose(0, 2, 1)
    return (p @ _heads_first(v, q.shape[2])).transpose(0, 2, 1, 3)


def _grad_numpy(
    m: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, *rest: np.ndarray, scale: float,
    causal: bool, result: str,
) -> np.ndarray:  # fmt: skip
    *mask, out, lse, dout = rest
    heads = q.shape[2]
    lse = lse.transpose(0, 2, 1)[..., None]
    p = np.exp(_scores(q, k, mask, scale, causal) - np.where(lse == -np.inf, 0, lse))
    do = _heads_first(dout, heads)
    if result == "dv":
        return _heads_last(p.swapaxes(2, 3) @ do, v)
    inner = (dout * out).sum(-1).transpose(0, 2, 1)[..., None]
    ds = p * (do @ _heads_first(v, heads).swapaxes(2, 3) - inner) * q.dtype.type(scale)
    if result == "dq":
        return _heads_last(ds @ _heads_first(k, heads), q)
    return _heads_last(ds.swapaxes(2, 3) @ _heads_first(q, heads), k)


# ------------------------------------------------------------------------------ gradients, the ops
def _options(node: Node) -> dict[str, Any]:
    return {"scale": node.attrs["scale"], "causal": node.attrs["causal"]}


def _by_result(nodes: Sequence[Node], dys: Sequence[Node]) -> dict[str, Node]:
    """The gradient of each result; a result may be there as several Nodes."""
    given: dict[str, Node] = {}
    for n, dy in zip(nodes, dys, strict=True):
        result = n.attrs["result"]
        given[result] = given[result] + dy if result in given else dy
    return given


def _grad(nodes: Sequence[Node], dys: Sequence[Node]) -> Sequence[Node | None]:
    node, options = nodes[0], _options(nodes[0])
    given = _by_result(nodes, dys)
    q, k, v, *mask = node.inputs
    lse = _attention(*node.inputs, **options, result="lse")
    found: list[Node | None] = [None] * len(node.inputs)
    if "out" in given:
        out = _attention(*node.inputs, **options, result="out")
        args = (q, k, v, *mask, out, lse, given["out"])
        found[:3] = [_attention_grad(*args, **options, result=r) for r in GRADIENTS]
    if "lse" in given:
        more = lse_gradient(q, k, mask[0] if mask else None, lse, given["lse"], **options)
        found[:2] = [g if old is None else old + g for old, g in zip(found, more, strict=False)]
    return found


def _grad_grad(nodes: Sequence[Node], dys: Sequence[Node]) -> Sequence[Node | None]:
    """In plain ops: second derivatives do make values of queries x keys."""
    names = ["q", "k", "v", "mask", "out", "lse", "dout"]
    node = nodes[0]
    if len(node.inputs) == 6:
        names.remove("mask")
    given = _by_result(nodes, dys)
    inputs = dict(zip(names, node.inputs, strict=True))
    found = second_gradient(inputs, given, **_options(node))
    return [found.get(name) for name in names]


def _pairs(node: Node, depth: int) -> Dim:
    """Operations of one product of queries and keys; causal: of the half that is seen."""
    q, k = node.inputs[0].shape, node.inputs[1].shape
    return product((*q[:3], k[1], depth, 1 if node.attrs["causal"] else 2))


def _depths(node: Node) -> tuple[int, int]:
    """Depth of query and key, and that of the value."""
    q, v = node.inputs[0].shape[3], node.inputs[2].shape[3]
    return fixed("attention", "the depth", q), fixed("attention", "the depth", v)


def _flops(node: Node) -> Dim:
    """The two products; the log-sum-exp comes with them."""
    return 0 if node.attrs["result"] == "lse" else _pairs(node, sum(_depths(node)))


def _grad_flops(node: Node) -> Dim:
    """Five products: scores and the weights' gradients (counted with dq), dq, dk and dv."""
    d, dv = _depths(node)
    return _pairs(node, {"dq": 2 * d + dv, "dk": d, "dv": dv}[node.attrs["result"]])


_attention = family_member(
    "attention", "attention", _rule, _numpy, _grad, _flops,
    "softmax(scale * q @ k.T) @ v for each batch and head, or the log-sum-exp of the scores",
)  # fmt: skip
_attention_grad = family_member(
    "attention_grad", "attention_grad", _grad_rule, _grad_numpy, _grad_grad, _grad_flops,
    "gradient of attention with respect to q, k or v, from its result and log-sum-exp",
)  # fmt: skip


def scale_of(scale: float | None, depth: Dim) -> float:
    """The factor of the scores: 1 / sqrt(depth) unless given."""
    if scale is not None:
        if isinstance(scale, bool) or not isinstance(scale, int | float) or scale != scale:
            raise ArgumentError(f"attention: scale={scale!r}: expected a number or None")
        return float(scale)
    return 1.0 / math.sqrt(max(fixed("attention", "the depth", depth), 1))


def attention_mask(mask: Any) -> Node:
    """A mask as the op takes it: bool, rank 4; axes that lack in front have extent 1."""
    node = as_node(mask)
    node = node if node.dtype == "bool" else cast(node, "bool")
    return reshape(node, (*[1] * (4 - node.rank), *node.shape)) if node.rank < 4 else node


def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
) -> Node:
    """softmax(scale * query @ key.T) @ value for each batch and head: (batch, queries, heads, dv).

    query (batch, queries, heads, d), key (batch, keys, kv_heads, d), value (batch, keys, kv_heads,
    dv); each of kv_heads serves heads / kv_heads query heads. mask: True at the keys that a query
    sees, broadcastable to (batch, heads, queries, keys). scale: default 1 / sqrt(d). is_causal:
    query i sees the keys j <= i. A query that sees no key gives 0. No value of queries x keys is
    made, forward and backward.
    """
    query, key, value = promote(query, key, value, takes="float")
    masks = () if mask is None else (attention_mask(mask),)
    factor = scale_of(scale, query.shape[-1] if query.rank else 1)
    options = {"scale": factor, "causal": bool(is_causal)}
    return _attention(query, key, value, *masks, **options, result="out")
