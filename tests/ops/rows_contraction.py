"""Rows of matrix products, convolutions, upsampling and pooling."""

from __future__ import annotations

from nnjit import ops
from tests.ops.table import Row, f, torch

wide = {"rtol": 1e-5, "atol": 1e-5}


def F():
    return torch.nn.functional


def _conv(x, w, strides=1, padding=((0, 0), (0, 0)), dilation=1, groups=1):
    (t, b), (le, r) = padding
    x = F().pad(x.permute(0, 3, 1, 2), (le, r, t, b))
    y = F().conv2d(x, w.permute(3, 2, 0, 1), stride=strides, dilation=dilation, groups=groups)
    return y.permute(0, 2, 3, 1)


def _conv1(x, w, low=0, high=0, **options):
    x = F().pad(x.permute(0, 2, 1), (low, high))
    return F().conv1d(x, w.permute(2, 1, 0), **options).permute(0, 2, 1)


def _max(x, size, strides, padding=((0, 0), (0, 0))):
    (t, b), (le, r) = padding
    x = F().pad(x.permute(0, 3, 1, 2), (le, r, t, b), value=-1e30)
    return F().max_pool2d(x, size, strides).permute(0, 2, 3, 1)


def _average(x, size, strides, padding=0, counted=False):
    return F().avg_pool2d(
        x.permute(0, 3, 1, 2), size, strides, padding, count_include_pad=counted
    ).permute(0, 2, 3, 1)  # fmt: skip


def _resize(x, size, mode):
    return F().interpolate(x.permute(0, 3, 1, 2), scale_factor=size, mode=mode).permute(0, 2, 3, 1)


MATMUL = [
    Row("matmul", ops.matmul, lambda a, b: a @ b, (f("batch", 7), f(7, 5)), **wide),
    Row("matmul_t", lambda a, b: ops.matmul(a, b, transpose_b=True), lambda a, b: a @ b.T,
        (f("batch", 7), f(5, 7)), **wide),
    Row("matmul_ta", lambda a, b: ops.matmul(a, b, transpose_a=True), lambda a, b: a.T @ b,
        (f("batch", 3), f("batch", 5)), **wide),
    Row("matmul_tt", lambda a, b: ops.matmul(a, b, transpose_a=True, transpose_b=True),
        lambda a, b: a.T @ b.T, (f(6, "batch"), f(5, 6)), **wide),
    Row("matmul_steps", ops.matmul, lambda a, b: a @ b, (f("batch", 3, 4), f(4, 5)), **wide),
    Row("matmul_stack", ops.matmul, lambda a, b: a @ b,
        (f("batch", 2, 3, 4), f("batch", 2, 4, 5)), **wide),
    Row("matmul_stack_t", lambda a, b: ops.matmul(a, b, transpose_b=True),
        lambda a, b: a @ b.swapaxes(-1, -2), (f("batch", 3, 4), f("batch", 5, 4)), **wide),
    Row("matmul_stack_tt", lambda a, b: ops.matmul(a, b, True, True),
        lambda a, b: a.swapaxes(-1, -2) @ b.swapaxes(-1, -2),
        (f("batch", 4, 3), f("batch", 5, 4)), **wide),
    Row("matmul_broadcast", ops.matmul, lambda a, b: a @ b,
        (f("batch", 1, 3, 4), f(2, 4, 5)), **wide),
    Row("matmul_vector", ops.matmul, lambda a, b: a @ b, (f("batch", 4), f(4)), **wide),
    Row("vector_matmul", ops.matmul, lambda a, b: a @ b, (f(4), f(4, 3)), **wide),
    Row("dot", ops.dot, lambda a, b: a @ b, (f(4), f(4)), **wide),
    Row("matmul_operator", lambda a, b: a @ b + 1, lambda a, b: a @ b + 1,
        (f("batch", 1), f(1, 2)), **wide),
]  # fmt: skip

image = f("batch", 6, 5, 4)
CONV = [
    Row("conv", ops.conv, _conv, (image, f(3, 2, 4, 3)), **wide),
    Row("conv_same", lambda x, w: ops.conv(x, w, padding="same"),
        lambda x, w: _conv(x, w, 1, ((1, 1), (1, 1))), (image, f(3, 3, 4, 2)), **wide),
    Row("conv_same_stride", lambda x, w: ops.conv(x, w, strides=2, padding="same"),
        lambda x, w: _conv(x, w, 2, ((0, 1), (1, 1))), (image, f(3, 3, 4, 2)), **wide),
    Row("conv_stride", lambda x, w: ops.conv(x, w, strides=(3, 2)),
        lambda x, w: _conv(x, w, (3, 2)), (image, f(2, 2, 4, 2)), **wide),
    Row("conv_stride_gap", lambda x, w: ops.conv(x, w, strides=3),
        lambda x, w: _conv(x, w, 3), (image, f(1, 2, 4, 2)), **wide),
    Row("conv_dilation", lambda x, w: ops.conv(x, w, dilation_rate=(2, 1), padding=1),
        lambda x, w: _conv(x, w, 1, ((1, 1), (1, 1)), (2, 1)), (image, f(3, 2, 4, 2)), **wide),
    Row("conv_groups", lambda x, w: ops.conv(x, w, groups=2, padding=((0, 1), (2, 0))),
        lambda x, w: _conv(x, w, 1, ((0, 1), (2, 0)), 1, 2), (image, f(3, 2, 2, 6)), **wide),
    Row("conv_all", lambda x, w: ops.conv(x, w, (2, 1), ((2, 1), (0, 1)), (1, 2), 4),
        lambda x, w: _conv(x, w, (2, 1), ((2, 1), (0, 1)), (1, 2), 4),
        (image, f(2, 2, 1, 4)), **wide),
    Row("conv_1x1", ops.conv, _conv, (image, f(1, 1, 4, 3)), **wide),
    Row("depthwise", ops.depthwise_conv,
        lambda x, w: _conv(x, w.reshape(3, 2, 1, 8), groups=4), (image, f(3, 2, 4, 2)), **wide),
    Row("depthwise_same", lambda x, w: ops.depthwise_conv(x, w, padding="same"),
        lambda x, w: _conv(x, w.reshape(3, 3, 1, 4), 1, ((1, 1), (1, 1)), groups=4),
        (image, f(3, 3, 4, 1)), **wide),
    Row("separable", ops.separable_conv,
        lambda x, d, p: _conv(_conv(x, d.reshape(2, 2, 1, 4), groups=4), p),
        (image, f(2, 2, 4, 1), f(1, 1, 4, 3)), **wide),
    Row("conv_steps", ops.conv, _conv1, (f("batch", 7, 3), f(3, 3, 2)), **wide),
    Row("conv_causal", lambda x, w: ops.conv(x, w, padding="causal", dilation_rate=2),
        lambda x, w: _conv1(x, w, 4, 0, dilation=2), (f("batch", 7, 3), f(3, 3, 2)), **wide),
    Row("conv_volume", lambda x, w: ops.conv(x, w, strides=(2, 1, 2)),
        lambda x, w: F().conv3d(x.permute(0, 4, 1, 2, 3), w.permute(4, 3, 0, 1, 2),
                                stride=(2, 1, 2)).permute(0, 2, 3, 4, 1),
        (f("batch", 5, 3, 4, 2), f(2, 2, 3, 2, 3)), **wide),
    Row("conv_transpose", lambda x, w: ops.conv_transpose(x, w, strides=2),
        lambda x, w: F().conv_transpose2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1),
                                          stride=2).permute(0, 2, 3, 1),
        (f("batch", 3, 4, 2), f(3, 2, 3, 2)), **wide),
    Row("conv_transpose_same", lambda x, w: ops.conv_transpose(x, w, 2, "same"),
        lambda x, w: F().conv_transpose2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1),
                                          stride=2)[:, :, :6, :8].permute(0, 2, 3, 1),
        (f("batch", 3, 4, 2), f(3, 3, 3, 2)), **wide),
    Row("conv_transpose_steps", lambda x, w: ops.conv_transpose(x, w, 3, output_padding=1),
        lambda x, w: F().conv_transpose1d(x.permute(0, 2, 1), w.permute(2, 1, 0), stride=3,
                                          output_padding=1).permute(0, 2, 1),
        (f("batch", 4, 2), f(2, 3, 2)), **wide),
    Row("conv_transpose_dilation", lambda x, w: ops.conv_transpose(x, w, dilation_rate=(1, 2)),
        lambda x, w: F().conv_transpose2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1),
                                          dilation=(1, 2)).permute(0, 2, 3, 1),
        (f("batch", 3, 4, 2), f(3, 2, 3, 2)), **wide),
    # an open number of steps: the second axis
    Row("conv_open", lambda x, w: ops.conv(x, w, padding="same"),
        lambda x, w: _conv1(x, w, 1, 2), (f(2, "batch", 3), f(4, 3, 2)), **wide),
    Row("conv_open_groups", lambda x, w: ops.conv(x, w, 1, "causal", dilation_rate=2, groups=2),
        lambda x, w: _conv1(x, w, 4, 0, dilation=2, groups=2),
        (f(2, "batch", 4), f(3, 2, 6)), **wide),
    Row("depthwise_open", lambda x, w: ops.depthwise_conv(x, w, padding=((2, 0),)),
        lambda x, w: _conv1(x, w.reshape(3, 1, 6), 2, 0, groups=3),
        (f(2, "batch", 3), f(3, 3, 2)), **wide),
]  # fmt: skip

RESIZE = [
    Row("upsample", lambda x: ops.upsample(x, (2, 3)), lambda x: _resize(x, (2, 3), "nearest"),
        (f("batch", 3, 2, 5),)),
    Row("upsample_open", lambda x: ops.upsample(x, 3), lambda x: x.repeat_interleave(3, 1),
        (f(2, "batch", 3),)),
    Row("upsample_bilinear", lambda x: ops.upsample(x, (3, 2), "bilinear"),
        lambda x: _resize(x, (3, 2), "bilinear"), (f("batch", 3, 1, 5),), **wide),
    Row("upsample_bilinear_steps", lambda x: ops.upsample(x, 4, "bilinear"),
        lambda x: _resize(x[:, None], (1, 4), "bilinear")[:, 0], (f("batch", 4, 2),), **wide),
]  # fmt: skip

POOL = [
    Row("max_pool", lambda x: ops.max_pool(x, 2), lambda x: _max(x, 2, 2), (image,)),
    Row("max_pool_overlap", lambda x: ops.max_pool(x, 3, 1), lambda x: _max(x, 3, 1), (image,)),
    Row("max_pool_gap", lambda x: ops.max_pool(x, (2, 1), 3), lambda x: _max(x, (2, 1), 3),
        (image,)),
    Row("max_pool_same", lambda x: ops.max_pool(x, 3, 2, "same"),
        lambda x: _max(x, 3, 2, ((0, 1), (1, 1))), (image,)),
    Row("max_pool_steps", lambda x: ops.max_pool(x, 2),
        lambda x: F().max_pool1d(x.permute(0, 2, 1), 2).permute(0, 2, 1), (f("batch", 7, 3),)),
    Row("average_pool", lambda x: ops.average_pool(x, 2), lambda x: _average(x, 2, 2), (image,)),
    Row("average_pool_pad", lambda x: ops.average_pool(x, 3, 2, 1),
        lambda x: _average(x, 3, 2, 1), (image,)),
    Row("average_pool_count", lambda x: ops.average_pool(x, 3, 2, 1, count_include_pad=True),
        lambda x: _average(x, 3, 2, 1, True), (image,)),
    Row("global_average_pool", ops.global_average_pool, lambda x: x.mean((1, 2)), (image,)),
    Row("global_max_pool", lambda x: ops.global_max_pool(x, keepdims=True),
        lambda x: x.amax((1, 2), keepdim=True), (image,)),
]  # fmt: skip

ROWS = [*MATMUL, *CONV, *RESIZE, *POOL]
