"""What is wrong is said with the op's name, what was given and what was expected."""

from __future__ import annotations

import re

import pytest

from nnjit import ops
from nnjit.errors import ArgumentError, DTypeError, GraphError, ShapeError
from nnjit.graph import Scope, constant, enter, input_node, scoped
from nnjit.layers.inputs import Input
from nnjit.ops.base import OPS
from nnjit.spec import Spec

x = input_node("x", Spec(("batch", 784)))
w = input_node("w", Spec((512, 10)))
half = ops.cast(x, "bfloat16")
steps = input_node("steps", Spec(("batch", "time", 3)))
image = input_node("image", Spec(("batch", 8, 8, 3)))
kernel = input_node("kernel", Spec((3, 3, 4, 6)))
labels = input_node("labels", Spec(("batch",), "int32"))
free = input_node("free", Spec(("batch", "height", 8, 3)))

CASES = [
    (lambda: x @ w, ShapeError,
     "matmul: (batch, 784) @ (512, 10): inner extents 784 and 512 differ"),
    (lambda: steps @ w, ShapeError,
     "matmul: (batch, time, 3) @ (512, 10): inner extents 3 and 512"),
    (lambda: ops.matmul(x, w, transpose_b=True), ShapeError,
     "(512, 10).T: inner extents 784 and 10"),
    (lambda: x @ 2, ShapeError, "a number is no matrix"),
    (lambda: x + w, ShapeError, "add: shapes (batch, 784) and (512, 10) do not broadcast"),
    (lambda: ops.sum(x, 2), ShapeError, "sum: axis 2 does not exist in a value of rank 2"),
    (lambda: ops.sum(x, (0, 0)), ShapeError, "sum: axis given twice"),
    (lambda: ops.max(ops.full((3, 0), 1.0), 1), ShapeError, "max: no element to choose"),
    (lambda: x.reshape(3, -1), ShapeError, "reshape: (batch, 784) has 784*batch elements"),
    (lambda: x.reshape(-1, -1), ShapeError, "more than one -1"),
    (lambda: ops.reshape(w, (5, 5)), ShapeError, "has 5120 elements, (5, 5) has 25"),
    (lambda: ops.transpose(x, (0, 0)), ShapeError, "transpose: axes (0, 0)"),
    (lambda: ops.squeeze(x, 1), ShapeError, "squeeze: axis 1 of (batch, 784) is not 1"),
    (lambda: w[512], ShapeError, "index 512 is out of range for axis 0 of (512, 10)"),
    (lambda: w[0, 0, 0], ShapeError, "does not fit the shape (512, 10)"),
    (lambda: w[[1, 2]], ShapeError, "see ops.take"),
    (lambda: x[1:], ShapeError, "an axis of run-time extent takes one index, or the whole axis"),
    (lambda: x[2], ShapeError, "slice: 2:3:1 on axis 0"),
    (lambda: ops.pad(steps, ((0, 0), (1, 0), (0, 0))), ShapeError, "must be known when the graph"),
    (lambda: ops.pad(w, ((0, 0),)), ShapeError, "pad: 1 widths for the 2 axes"),
    (lambda: ops.concatenate([x, w], 1), ShapeError, "concatenate: (batch, 784) and (512, 10)"),
    (lambda: ops.concatenate([steps, x[:, None, :3]], 1), ShapeError, "have no sum"),
    (lambda: ops.split(w, 3, 0), ShapeError, "split: axis 0 of (512, 10) into 3 parts"),
    (lambda: ops.broadcast_to(w, (10,)), ShapeError, "broadcast_to: (512, 10) does not fit (10,)"),
    (lambda: ops.conv(image, kernel), ShapeError, "has 3 channels, the kernel (3, 3, 4, 6)"),
    (lambda: ops.conv(free, kernel), ShapeError,
     "must be known when the graph is built, got height"),
    (lambda: ops.conv(image, ops.full((9, 1, 3, 2), 1.0)), ShapeError,
     "conv2d: a window of 9 does not fit into height 8"),
    (lambda: ops.conv(image, ops.full((3, 3, 3, 2), 1.0), padding="full"), ArgumentError,
     "padding='full': expected 'valid', 'same'"),
    (lambda: ops.conv(image, ops.full((3, 3, 3, 2), 1.0), strides=0), ArgumentError,
     "strides=0: expected a whole number from 1"),
    (lambda: ops.conv(image, ops.full((3, 3, 1, 2), 1.0), groups=3), ShapeError,
     "2 outputs do not divide into 3 groups"),
    (lambda: ops.conv(x, kernel), ShapeError, "equal ranks of 3, 4 or 5 expected"),
    (lambda: ops.depthwise_conv(image, kernel), ShapeError, "with the same channels expected"),
    (lambda: ops.conv_transpose(image, ops.full((3, 3, 2, 3), 1.0), 2, output_padding=2),
     ArgumentError, "output_padding=2: expected less than the stride, 2"),
    (lambda: ops.max_pool(image, 9), ShapeError, "max_pool: a window of 9 does not fit"),
    (lambda: ops.max_pool(image, 2, padding=2), ShapeError,
     "leaves windows of 2 without an element"),
    (lambda: ops.max_pool(image, (2, 2, 2)), ArgumentError, "expected one number or 2"),
    (lambda: ops.max_pool(x, 2), ShapeError, "1 or 2 spatial axes expected"),
    (lambda: ops.take(w, x), DTypeError, "indices must be integers, got float32"),
    (lambda: ops.clip(x, 2, 1), ArgumentError, "clip: low=2 is above high=1"),
    (lambda: ops.clip(x), ArgumentError, "expected low, high or both"),
    (lambda: ops.cast(x, "float16"), DTypeError, "unknown dtype 'float16'; did you mean"),
    (lambda: ops.exp(x, x), TypeError, "exp takes 1 operand(s), 2 given"),
    (lambda: OPS["add"](half, half), DTypeError, "add: bfloat16 is for storage and products"),
    (lambda: OPS["sum"](half, axes=(0,), keepdims=False), DTypeError, "cast it to float32"),
    (lambda: constant(1.0, "bfloat16"), DTypeError, "no constant is bfloat16"),
    (lambda: ops.iota((3,), dtype="bfloat16"), DTypeError, "iota: bfloat16"),
    (lambda: Input((3,), dtype="bfloat16"), ArgumentError, "dtype_policy"),
    (lambda: ops.cast(x, "uint8") + 300, ArgumentError, "300 does not fit into uint8"),
    (lambda: ops.sparse_softmax_cross_entropy(x, w), DTypeError, "labels are float32"),
    (lambda: ops.sparse_softmax_cross_entropy(steps, labels), ShapeError,
     "need labels (batch, time)"),
    (lambda: ops.softmax_cross_entropy(x, w), ShapeError, "must have one shape"),
    (lambda: ops.softmax(x, 5), ShapeError, "softmax: axis 5"),
    (lambda: ops.dropout(x, 1.0), ArgumentError, "rate=1.0"),
    (lambda: ops.dropout(x, 0.5), GraphError, "no random state"),
    (lambda: bool(x > 0), TypeError, "no truth value"),
    (lambda: list(x), TypeError, "cannot be iterated"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "error", "text"), CASES, ids=[c[2][:40] for c in CASES])
def test_message(make, error, text):
    with pytest.raises(error, match=re.escape(text)):
        make()


def test_message_names_the_layer():
    with (
        enter(Scope("model")),
        scoped("dense_1"),
        pytest.raises(ShapeError, match="model/dense_1: "),
    ):
        x @ w
