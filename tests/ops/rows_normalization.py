"""Rows of normalisations."""

from nnjit import ops
from tests.ops.table import Row, f, torch

x3, x4 = f("batch", 3, 4), f("batch", 3, 2, 4)


def norm_batch(x, gamma, beta):
    middle, variance = ops.moments(x, (0, 1, 2), keepdims=True)
    return ops.batch_normalization(x, middle, variance, beta, gamma, 0.1, own=True)


def torch_batch(x, gamma, beta):
    y = torch.nn.functional.batch_norm(x.movedim(-1, 1), None, None, gamma, beta, True, eps=0.1)
    return y.movedim(1, -1)


def torch_layer(x, axes, gamma=1.0, beta=0.0):
    off = x - x.mean(axes, True)
    return off / (off.square().mean(axes, True) + 0.1).sqrt() * gamma + beta


ROWS = [
    Row("layer_normalization", lambda x, g, b: ops.layer_normalization(x, g, b, epsilon=0.1),
        lambda x, g, b: torch.nn.functional.layer_norm(x, (4,), g, b, 0.1), (x3, f(4), f(4))),
    Row("layer_normalization_axes", lambda x: ops.layer_normalization(x, axis=(1, 3), epsilon=0.1),
        lambda x: torch_layer(x, (1, 3)), (x4,)),
    Row("layer_normalization_wide_beta",
        lambda x, g, b: ops.layer_normalization(x, g, b, axis=1, epsilon=0.1),
        lambda x, g, b: torch_layer(x, 1, g, b), (x3, f(3, 1), x3)),
    Row("group_normalization", lambda x, g, b: ops.group_normalization(x, 2, g, b, -1, 0.1),
        lambda x, g, b: torch.nn.functional.group_norm(x.movedim(-1, 1), 2, g, b, 0.1)
        .movedim(1, -1), (x4, f(4), f(4)), rtol=1e-5),
    Row("group_normalization_first", lambda x: ops.group_normalization(x, 3, axis=1, epsilon=0.1),
        lambda x: torch.nn.functional.group_norm(x, 3, eps=0.1), (x4,), rtol=1e-5),
    Row("group_normalization_flat", lambda x, g: ops.group_normalization(x, 2, g, epsilon=0.1),
        lambda x, g: torch.nn.functional.group_norm(x, 2, g, eps=0.1), (f("batch", 6), f(6)),
        rtol=1e-5),
    Row("rms_normalization", lambda x, g: ops.rms_normalization(x, g, (1, 2), 0.1),
        lambda x, g: torch.nn.functional.rms_norm(x, (3, 4), g, 0.1), (x3, f(3, 4))),
    Row("unit_normalization", ops.unit_normalization,
        lambda x: torch.nn.functional.normalize(x, dim=-1, eps=1e-12), (f("batch", 5, low=0.2),)),
    Row("batch_normalization_own", norm_batch, torch_batch, (x4, f(4), f(4)), rtol=1e-5,
        empty=False),
    Row("batch_normalization", ops.batch_normalization,
        lambda x, m, v: (x - m) / (v + 1e-3).sqrt(),
        (f("batch", 3), f(3), f(3, low=0.5))),
    Row("moments_mean", lambda x: ops.moments(x, (0, 1))[0], lambda x: x.mean((0, 1)), (x3,),
        empty=False),
    Row("moments_variance", lambda x: ops.moments(x, (0, 1))[1],
        lambda x: x.var((0, 1), correction=0), (x3,), empty=False),
    Row("moments_of_rows", lambda x: ops.moments(x, -1, keepdims=True)[1],
        lambda x: x.var(-1, correction=0, keepdim=True), (x3,)),
]  # fmt: skip
