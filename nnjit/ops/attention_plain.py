"""Attention written with matrix products and softmax: scores, weights and gradients as Nodes.

All of them make values of shape (batch, heads, queries, keys). They serve where the weights
themselves are wanted (dropout, scores as a result) and for second derivatives; `attention` has the
ops that never make such a value.
"""

from __future__ import annotations

import math

from nnjit.graph import Node
from nnjit.ops.composite import logsumexp
from nnjit.ops.contraction import matmul
from nnjit.ops.elementwise import equal, exp, logical_and, where
from nnjit.ops.join import iota
from nnjit.ops.reduce import sum
from nnjit.ops.view import broadcast_to, expand_dims, reshape, transpose
from nnjit.spec import Dim, divide


def heads_first(x: Node, heads: Dim) -> Node:
    """(batch, time, own heads, k) as (batch, heads, time, k): each own head serves its group."""
    batch, time, own, depth = x.shape
    x = transpose(x, (0, 2, 1, 3))
    if own == heads:
        return x
    group = divide(heads, own)
    assert group is not None
    x = broadcast_to(expand_dims(x, 2), (batch, own, group, time, depth))
    return reshape(x, (batch, heads, time, depth))


def heads_last(x: Node, like: Node) -> Node:
    """The opposite of `heads_first` for gradients: the heads of a group are added up."""
    batch, time, own, depth = like.shape
    group = divide(x.shape[1], own)
    assert group is not None
    if group != 1:
        x = sum(reshape(x, (batch, own, group, time, depth)), 2)
    return transpose(x, (0, 2, 1, 3))


def seen(q: Node, k: Node, mask: Node | None, causal: bool) -> Node | None:
    """Which keys a query sees, broadcastable to the scores; None if it is all of them."""
    if not causal:
        return mask
    shape = (q.shape[1], k.shape[1])
    below = iota(shape, axis=0) >= iota(shape, axis=1)
    return below if mask is None else logical_and(mask, below)


def scores(q: Node, k: Node, mask: Node | None, scale: float, causal: bool) -> Node:
    """scale * q @ k.T, (batch, heads, queries, keys); -inf at keys that a query does not see."""
    s = matmul(heads_first(q, q.shape[2]), heads_first(k, q.shape[2]), transpose_b=True) * scale
    visible = seen(q, k, mask, causal)
    return s if visible is None else where(visible, s, -math.inf)


def weights_of(s: Node, lse: Node) -> Node:
    """softmax(s), given logsumexp(s) of shape (batch, heads, queries, 1); 0 in a row of -inf."""
    return exp(s - where(equal(lse, -math.inf), 0, lse))


def plain_weights(
    q: Node, k: Node, mask: Node | None, scale: float, causal: bool
) -> tuple[Node, Node]:
    """Attention weights, and the logsumexp of the scores (batch, heads, queries, 1)."""
    s = scores(q, k, mask, scale, causal)
    lse = logsumexp(s, -1, keepdims=True)
    return weights_of(s, lse), lse


def combined(weights: Node, v: Node) -> Node:
    """weights @ v, (batch, queries, heads, dv)."""
    return transpose(matmul(weights, heads_first(v, weights.shape[1])), (0, 2, 1, 3))


def time_last(x: Node) -> Node:
    """(batch, queries, heads) as (batch, heads, queries, 1)."""
    return expand_dims(transpose(x, (0, 2, 1)), -1)


def lse_gradient(
    q: Node, k: Node, mask: Node | None, lse: Node, dlse: Node, scale: float, causal: bool
) -> tuple[Node, Node]:
    """Gradients of the log-sum-exp with respect to q and k."""
    p = weights_of(scores(q, k, mask, scale, causal), time_last(lse))
    ds = p * time_last(dlse) * scale
    dq = matmul(ds, heads_first(k, q.shape[2]))
    dk = matmul(ds, heads_first(q, q.shape[2]), transpose_a=True)
    return heads_last(dq, q), heads_last(dk, k)


def second_gradient(
    inputs: dict[str, Node], given: dict[str, Node], scale: float, causal: bool
) -> dict[str, Node]:
    """The gradient of attention_grad, with respect to q, k, v, out, lse and dout.

    inputs: q, k, v, out, lse, dout and mask, if there is one. given: the cotangents of those of dq,
    dk and dv that have one. With P the weights, S the scores, D = sum(dout * out) and
    dS = P * (dout @ v.T - D), the gradients are dq = scale dS k, dk = scale dS.T q, dv = P.T dout.
    """
    q, k, lse = (inputs[n] for n in ("q", "k", "lse"))
    count = q.shape[2]
    first = {n: heads_first(inputs[n], count) for n in ("q", "k", "v", "out", "dout")}
    Q, K, V, dO = first["q"], first["k"], first["v"], first["dout"]
    cot = {n: heads_first(g, count) for n, g in given.items()}
    P = weights_of(scores(q, k, inputs.get("mask"), scale, causal), time_last(lse))
    slope = matmul(dO, V, transpose_b=True) - sum(dO * first["out"], -1, keepdims=True)

    out: dict[str, list[Node]] = {n: [] for n in ("q", "k", "v", "dout")}
    of_p: list[Node] = []
    if "dv" in cot:
        of_p.append(matmul(dO, cot["dv"], transpose_b=True))
        out["dout"].append(matmul(P, cot["dv"]))
    of_ds: list[Node] = []
    if "dq" in cot:
        of_ds.append(matmul(cot["dq"], K, transpose_b=True))
        out["k"].append(matmul(P * slope * scale, cot["dq"], transpose_a=True))
    if "dk" in cot:
        of_ds.append(matmul(Q, cot["dk"], transpose_b=True))
        out["q"].append(matmul(P * slope * scale, cot["dk"]))
    of_d = None
    if of_ds:
        g = added(of_ds) * scale
        of_p.append(g * slope)
        of_slope = g * P
        of_d = -sum(of_slope, -1, keepdims=True)
        out["v"].append(matmul(of_slope, dO, transpose_a=True))
        out["dout"] += [matmul(of_slope, V), of_d * first["out"]]
    of_s = added(of_p) * P
    out["q"].append(matmul(of_s, K) * scale)
    out["k"].append(matmul(of_s, Q, transpose_a=True) * scale)
    found = {n: heads_last(added(parts), inputs[n]) for n, parts in out.items() if parts}
    found["lse"] = -transpose(sum(of_s, -1), (0, 2, 1))
    if of_d is not None:
        found["out"] = heads_last(of_d * dO, inputs["out"])
    return found


def added(parts: list[Node]) -> Node:
    """The sum of one Node or more."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
