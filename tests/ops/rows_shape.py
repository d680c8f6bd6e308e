"""Rows of reductions, views, index, gather, softmax and the cross-entropies."""

from __future__ import annotations

from nnjit import ops
from nnjit.ops.base import OPS
from tests.ops.table import Row, f, i, torch

x3 = (f("batch", 3, 5),)


def F():
    return torch.nn.functional


REDUCE = [
    Row("sum", ops.sum, lambda x: x.sum(), x3),
    Row("sum_last", lambda x: ops.sum(x, -1), lambda x: x.sum(-1), x3),
    Row("sum_two", lambda x: ops.sum(x, (0, -1), keepdims=True), lambda x: x.sum((0, 2), True), x3),
    Row("sum_none", lambda x: ops.sum(x, ()), lambda x: x, x3),
    Row("sum_bool", lambda x: ops.sum(x > 0, 1), lambda x: (x > 0).sum(1), x3, grad=False),
    Row("mean", lambda x: ops.mean(x, 1), lambda x: x.mean(1), x3),
    Row("mean_batch", lambda x: ops.mean(x, 0), lambda x: x.mean(0), x3),
    Row("mean_ints", lambda x: ops.mean(x, 1), lambda x: x.double().mean(1),
        (i("batch", 3, below=9),), grad=False),
    Row("max", lambda x: ops.max(x, 1), lambda x: x.amax(1), x3),
    Row("max_all", lambda x: ops.max(x), lambda x: x.amax(), x3, empty=False),
    Row("min", lambda x: ops.min(x, (1, 2), True), lambda x: x.amin((1, 2), True), x3),
    Row("max_ints", lambda x: ops.max(x, 1), lambda x: x.amax(1),
        (i("batch", 4, below=9, low=-9),), grad=False),
    Row("prod", lambda x: ops.prod(x, -1), lambda x: x.prod(-1), x3, rtol=1e-5),
    Row("argmax", lambda x: ops.argmax(x, 1), lambda x: x.argmax(1), x3, grad=False),
    Row("argmin", lambda x: ops.argmin(x, -1, keepdims=True), lambda x: x.argmin(-1, True),
        x3, grad=False),
    Row("argmax_all", ops.argmax, lambda x: x.argmax(), x3, grad=False, empty=False),
    Row("any", lambda x: ops.any(x > 1.5, 1), lambda x: (x > 1.5).any(1), x3, grad=False),
    Row("all", lambda x: ops.all(x < 1.5, 1), lambda x: (x < 1.5).all(1), x3, grad=False),
    Row("var", lambda x: ops.var(x, 1), lambda x: x.var(1, unbiased=False), x3),
    Row("std", lambda x: ops.std(x, -1), lambda x: x.std(-1, unbiased=False), x3),
]  # fmt: skip

VIEW = [
    Row("reshape", lambda x: ops.reshape(x, (-1, 5, 3)) * 2, lambda x: x.reshape(-1, 5, 3) * 2, x3),
    Row("flatten", lambda x: ops.flatten(x) * 2, lambda x: x.reshape(len(x), 15) * 2, x3),
    Row("merge_batch", lambda x: x.reshape(x.shape[0] * 3, 5).sum(1),
        lambda x: x.reshape(-1, 5).sum(1), x3),
    Row("transpose", lambda x: ops.transpose(x, (1, 0, 2)), lambda x: x.permute(1, 0, 2), x3),
    Row("transpose_all", lambda x: x.T, lambda x: x.permute(2, 1, 0), x3),
    Row("moveaxis", lambda x: ops.moveaxis(x, 0, -1), lambda x: x.movedim(0, -1), x3),
    Row("swapaxes", lambda x: ops.swapaxes(x, -1, -2), lambda x: x.swapaxes(-1, -2), x3),
    Row("slice", lambda x: x[:, 1:, ::2], lambda x: x[:, 1:, ::2], x3),
    Row("slice_back", lambda x: x[:, ::-1, 3:0:-2], lambda x: x.flip(1)[:, :, [3, 1]], x3),
    Row("index", lambda x: x[:, -1, None, 2], lambda x: x[:, -1, None, 2], x3),
    Row("index_ellipsis", lambda x: x[..., 1:4], lambda x: x[..., 1:4], x3),
    Row("index_nothing", lambda x: x[:, 2:2], lambda x: x[:, 2:2], x3),
    Row("first_of_batch", lambda x: x[0], lambda x: x[0], x3, empty=False),
    Row("last_of_batch", lambda x: x[-1], lambda x: x[-1], x3, empty=False),
    Row("reverse_batch", lambda x: x[::-1], lambda x: x.flip(0), x3),
    Row("pad", lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1)), 1.5),
        lambda x: F().pad(x, (0, 1, 1, 2), value=1.5), x3),
    Row("pad_inside", lambda x: ops.pad(x, ((0, 0, 0), (1, 0, 1), (0, 0, 2))),
        lambda x: _dilated(x), x3),
    Row("pad_moves", lambda x: ops.pad(x, ((2, -2), (0, 1))) + ops.pad(x, ((-1, 1), (1, 0))),
        lambda x: F().pad(x, (0, 1, 2, 0))[: len(x)] + F().pad(x, (1, 0, 0, 1))[1:],
        (f("batch", 3),)),
    Row("flip", lambda x: ops.flip(x, (0, 2)), lambda x: x.flip((0, 2)), x3),
    Row("concatenate", lambda a, c: ops.concatenate([a, c, a], -1),
        lambda a, c: torch.cat([a, c, a], -1), (f("batch", 3), f("batch", 2))),
    Row("bfloat16_moves", lambda a, c: ops.cast(OPS["concatenate"](
        ops.pad(ops.cast(a, "bfloat16"), ((0, 0), (1, 2)), 1.5)[:, ::2],
        ops.cast(c, "bfloat16")[:, 1:], axis=1).T, "float32"),
        lambda a, c: torch.cat([F().pad(a.bfloat16().double(), (1, 2), value=1.5)[:, ::2],
                                c.bfloat16().double()[:, 1:]], -1).T,
        (f("batch", 5), f("batch", 4)), grad=False),
    Row("concatenate_batch", lambda a, c: ops.concatenate([a, a, c], 0),
        lambda a, c: torch.cat([a, a, c]), (f("batch", 3), f("batch", 3))),
    Row("stack", lambda a, c: ops.stack([a, c], 1), lambda a, c: torch.stack([a, c], 1),
        (f("batch", 3), f("batch", 3))),
    Row("split", lambda x: ops.split(x, 3, 1)[1] * 2, lambda x: x[:, 1:2] * 2, x3),
    Row("split_at", lambda x: ops.split(x, (1, 4))[1], lambda x: x[..., 1:4], x3),
    Row("squeeze", lambda x: ops.squeeze(ops.expand_dims(x, (0, 2)), 2),
        lambda x: x[None], x3),
    Row("broadcast_to", lambda x: ops.broadcast_to(x, (4, *x.shape)) * 1,
        lambda x: x.expand(4, *x.shape), x3),
    Row("broadcast_row", lambda x: ops.broadcast_to(x, (2, 3, 4)) * x,
        lambda x: x.expand(2, 3, 4) * x, (f(3, 1),)),
    Row("repeat", lambda x: ops.repeat(x, 2, 1), lambda x: x.repeat_interleave(2, 1), x3),
    Row("tile", lambda x: ops.tile(x, 3, -1), lambda x: x.tile((1, 1, 3)), x3),
    Row("iota", lambda x: x * ops.cast(ops.iota(x.shape, 1), x.dtype),
        lambda x: x * torch.arange(3)[:, None], x3),
    Row("one_hot", lambda i: ops.one_hot(i, 4), lambda i: F().one_hot(i.long(), 4),
        (i("batch", 2, below=4),), grad=False),
]  # fmt: skip


def _dilated(x):
    out = torch.zeros(len(x), 6, 13, dtype=x.dtype)
    return torch.cat([out[:, :1, :], _spread(x)], 1)


def _spread(x):
    rows = torch.stack([x, torch.zeros_like(x)], 2).reshape(len(x), 6, 5)[:, :5]
    columns = torch.stack([rows, torch.zeros_like(rows), torch.zeros_like(rows)], 3)
    return columns.reshape(len(x), 5, 15)[..., :13]


GATHER = [
    Row("take", lambda t, k: ops.take(t, k), lambda t, k: t[k.long()],
        (f(7, 3), i("batch", 2, below=7))),
    Row("take_axis", lambda t, k: ops.take(t, k, axis=1), lambda t, k: t[:, k.long()],
        (f(2, 5, 3), i("batch", below=5, dtype="int64"))),
    Row("take_uint8", lambda t, k: ops.take(t, k), lambda t, k: t[k.long()],
        (f(7, 3), i("batch", below=7, dtype="uint8"))),
    Row("scatter", lambda k, v: ops.scatter(k, v, 6),
        lambda k, v: torch.zeros(6, 3, dtype=v.dtype).index_add(0, k.long(), v),
        (i("batch", below=6), f("batch", 3))),
]  # fmt: skip

SOFTMAX = [
    Row("softmax", ops.softmax, lambda x: torch.softmax(x, -1), x3),
    Row("softmax_axis", lambda x: ops.softmax(x, 1), lambda x: torch.softmax(x, 1), x3),
    Row("log_softmax", ops.log_softmax, lambda x: torch.log_softmax(x, -1), x3),
    Row("logsumexp", lambda x: ops.logsumexp(x, (1, 2)), lambda x: torch.logsumexp(x, (1, 2)), x3),
    Row("logsumexp_keepdims", lambda x: ops.logsumexp(x, 1, True),
        lambda x: torch.logsumexp(x, 1, True), x3),
    Row("sparse_softmax_cross_entropy", ops.sparse_softmax_cross_entropy,
        lambda x, y: F().cross_entropy(x, y.long(), reduction="none"),
        (f("batch", 5), i("batch", below=5))),
    Row("sparse_softmax_cross_entropy_steps", ops.sparse_softmax_cross_entropy,
        lambda x, y: F().cross_entropy(x.swapaxes(1, 2), y.long(), reduction="none"),
        (f("batch", 3, 5), i("batch", 3, below=5, dtype="uint8"))),
    Row("softmax_cross_entropy", ops.softmax_cross_entropy,
        lambda x, t: -(t * torch.log_softmax(x, -1)).sum(-1),
        (f("batch", 5), f("batch", 5, low=0, high=1))),
    Row("sigmoid_cross_entropy", ops.sigmoid_cross_entropy,
        lambda x, t: F().binary_cross_entropy_with_logits(x, t, reduction="none"),
        (f("batch", 5, low=-9, high=9), f("batch", 5, low=0, high=1))),
]  # fmt: skip

ROWS = [*REDUCE, *VIEW, *GATHER, *SOFTMAX]
