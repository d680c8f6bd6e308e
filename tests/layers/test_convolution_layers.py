"""Convolution, pooling and batch normalization against PyTorch, and their arguments."""

import numpy as np
import pytest
from layer_checks import apply

from nnjit import layers
from nnjit.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(1)


def array(*shape):
    return RNG.standard_normal(shape).astype("float32")


def same(size, kernel, stride, dilation):
    """(before, after) of Keras' 'same' padding."""
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


CONVS = [
    {"kernel_size": 3},
    {"kernel_size": (3, 2), "strides": 2, "padding": "same"},
    {"kernel_size": 3, "dilation_rate": 2, "padding": "same"},
    {"kernel_size": 3, "groups": 2},
    {"kernel_size": (2, 3), "padding": ((1, 0), (2, 1)), "use_bias": False},
    {"kernel_size": 5, "strides": (1, 3), "padding": "SAME", "activation": "relu"},
]


@pytest.mark.parametrize("options", CONVS, ids=str)
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolution_is_torch_conv2d(options, depthwise):
    torch = pytest.importorskip("torch", reason="compares with torch, which is missing")
    options = dict(options)
    if depthwise:
        if "groups" in options:
            pytest.skip("a depthwise convolution has no groups")
        layer = layers.DepthwiseConv2D(depth_multiplier=2, bias_initializer="normal", **options)
    else:
        layer = layers.Conv2D(6, bias_initializer="normal", **options)
    x = array(2, 9, 8, 4)
    layer(layers.Input((9, 8, 4)))
    filters = 8 if depthwise else 6
    kernel = torch.tensor(layer.get_weights()[0], requires_grad=True)
    kh, kw = kernel.shape[:2]
    if depthwise:
        assert kernel.shape == (kh, kw, 4, 2)
        weight = kernel.permute(2, 3, 0, 1).reshape(8, 1, kh, kw)
    else:
        assert kernel.shape == (kh, kw, 4 // layer.groups, 6)
        weight = kernel.permute(3, 2, 0, 1)
    pads = layer.padding
    if isinstance(pads, str):
        sizes = zip((9, 8), (kh, kw), layer.strides, layer.dilation_rate, strict=True)
        pads = [same(*s) if pads == "same" else (0, 0) for s in sizes]
    tx = torch.tensor(x, requires_grad=True)
    padded = torch.nn.functional.pad(tx.permute(0, 3, 1, 2), (*pads[1], *pads[0]))
    bias = torch.tensor(layer.get_weights()[1]) if layer.use_bias else None
    ty = torch.nn.functional.conv2d(
        padded, weight, bias, stride=layer.strides, dilation=layer.dilation_rate,
        groups=4 if depthwise else layer.groups,
    ).permute(0, 2, 3, 1)  # fmt: skip
    if options.get("activation"):
        ty = torch.relu(ty)
    dy = array(*ty.shape)
    assert dy.shape[-1] == filters
    ty.backward(torch.tensor(dy))
    y, grads, _ = apply(layer, x, cotangent=dy)
    for ours, theirs in [
        (y, ty.detach()), (grads["x0"], tx.grad), (grads[layer.name + "/kernel"], kernel.grad),
    ]:  # fmt: skip
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-4, atol=2e-5)


def test_same_padding_puts_the_odd_row_at_the_end():
    layer = layers.Conv2D(1, 2, padding="same", kernel_initializer="ones", use_bias=False)
    x = np.arange(9, dtype="float32").reshape(1, 3, 3, 1)
    y, _, _ = apply(layer, x)
    np.testing.assert_array_equal(y[0, :, :, 0], [[8, 12, 7], [20, 24, 13], [13, 15, 8]])


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "strides"), [(2, None), (3, 2), ((3, 1), (2, 2))])
def test_pooling(padding, size, strides):
    x = array(2, 7, 6, 3)
    make = {"pool_size": size, "strides": strides, "padding": padding}
    most, mean = layers.MaxPooling2D(**make), layers.AveragePooling2D(**make)
    (kh, kw), (sh, sw) = most.pool_size, most.strides
    (t, b), (left, r) = [
        same(n, k, s, 1) if padding == "same" else (0, 0) for n, k, s in [(7, kh, sh), (6, kw, sw)]
    ]
    wide = np.pad(x, ((0, 0), (t, b), (left, r), (0, 0)), constant_values=np.nan)
    rows = range(0, wide.shape[1] - kh + 1, sh)
    columns = range(0, wide.shape[2] - kw + 1, sw)
    windows = [[wide[:, i : i + kh, j : j + kw] for j in columns] for i in rows]
    for layer, f in ((most, np.nanmax), (mean, np.nanmean)):
        expected = np.stack([np.stack([f(w, (1, 2)) for w in row], 1) for row in windows], 1)
        y, grads, _ = apply(layer, x, cotangent=np.ones_like(expected))
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
        assert abs(grads["x0"].sum() - expected.size) < 1e-2


@pytest.mark.parametrize("keepdims", [False, True])
def test_global_pooling(keepdims):
    x = array(2, 5, 4, 3)
    for layer, f in [
        (layers.GlobalAveragePooling2D(keepdims=keepdims), np.mean),
        (layers.GlobalMaxPooling2D(keepdims=keepdims), np.max),
    ]:
        np.testing.assert_allclose(
            apply(layer, x)[0], f(x, (1, 2), keepdims=keepdims), rtol=1e-5, atol=1e-6
        )


# --------------------------------------------------------------------------------- normalization
@pytest.mark.parametrize(("shape", "axis"), [((8, 5), -1), ((3, 4, 2, 5), -1), ((3, 5, 4, 2), 1)])
def test_batch_normalization_trains_like_torch(shape, axis):
    torch = pytest.importorskip("torch", reason="compares with torch, which is missing")
    layer = layers.BatchNormalization(
        axis=axis, gamma_initializer="normal", beta_initializer="normal"
    )
    x, dy = array(*shape), array(*shape)
    y, grads, updates = apply(layer, x, training=True, cotangent=dy)
    gamma, beta, mean, variance = layer.get_weights()
    tg, tb = torch.tensor(gamma, requires_grad=True), torch.tensor(beta, requires_grad=True)
    tx = torch.tensor(x, requires_grad=True)
    moved = tx.movedim(axis, 1)
    ty = torch.nn.functional.batch_norm(moved, None, None, tg, tb, training=True, eps=1e-3)
    ty = ty.movedim(1, axis)
    ty.backward(torch.tensor(dy))
    name = layer.name
    for ours, theirs in [
        (y, ty.detach()), (grads["x0"], tx.grad),
        (grads[f"{name}/gamma"], tg.grad), (grads[f"{name}/beta"], tb.grad),
    ]:  # fmt: skip
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)
    axes = tuple(a for a in range(len(shape)) if a != axis % len(shape))
    np.testing.assert_allclose(
        updates[f"{name}/moving_mean"], 0.99 * mean + 0.01 * x.mean(axes), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        updates[f"{name}/moving_variance"], 0.99 * variance + 0.01 * x.var(axes), rtol=1e-5
    )


def test_batch_normalization_infers_with_moving_statistics():
    layer = layers.BatchNormalization(epsilon=0.0)
    x = array(4, 3)
    apply(layer, x)
    mean, variance = array(3), np.array([0.5, 2.0, 4.0], "float32")
    layer.set_weights([[1, 2, 3], [0, 0, 1], mean, variance])
    expected = (x - mean) / np.sqrt(variance) * [1, 2, 3] + [0, 0, 1]
    y, _, updates = apply(layer, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert not updates
    layer.trainable = False
    y, grads, updates = apply(layer, x, training=True, cotangent=x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert not updates
    assert set(grads) == {"x0"}


def test_weights_have_the_order_of_keras():
    layer = layers.BatchNormalization(name="bn")
    layer.build((None, 4))
    assert [v.name for v in layer.weights] == [
        "bn/gamma", "bn/beta", "bn/moving_mean", "bn/moving_variance"
    ]  # fmt: skip
    assert [v.name for v in layer.trainable_weights] == ["bn/gamma", "bn/beta"]
    assert len(layer.non_trainable_weights) == 2
    layer = layers.BatchNormalization(center=False, scale=False)
    layer.build((None, 4))
    assert [v.key for v in layer.weights] == ["moving_mean", "moving_variance"]


ERRORS = [
    (lambda: layers.Conv2D(3, 3, padding="sane"), "did you mean 'same'"),
    (lambda: layers.Conv2D(3, 3, data_format="channels_first"), "data_format"),
    (lambda: layers.Conv2D(3, 3, groups=2), "groups=2"),
    (lambda: layers.Conv2D(3, (3, 3, 3)), "kernel_size"),
    (lambda: layers.Conv2D(3, 3, strides=2, dilation_rate=2), "strides"),
    (lambda: layers.MaxPooling2D(padding=((1, 1), (1, 1))), "padding"),
    (lambda: layers.MaxPooling2D(strides=0), "strides=0"),
    (lambda: layers.BatchNormalization(synchronized=True), "synchronized"),
]


@pytest.mark.parametrize(("make", "message"), ERRORS)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_shape_errors_name_the_layer():
    with pytest.raises(ShapeError, match=r"conv2d: expected \(batch, height, width, channels\)"):
        layers.Conv2D(3, 3)(layers.Input((8, 8)))
    layer = layers.Conv2D(3, 3)
    layer(layers.Input((8, 8, 2)))
    with pytest.raises(ShapeError, match=r"conv2d: expected last axis 2, got \(batch, 8, 8, 4\)"):
        layer(layers.Input((8, 8, 4)))
    with pytest.raises(ShapeError, match="max_pooling2d: expected"):
        layers.MaxPooling2D()(layers.Input((8,)))
    with pytest.raises(ShapeError, match="conv2d"):
        layers.Conv2D(3, 9)(layers.Input((8, 8, 1)))
