"""Training is that of PyTorch, started from the same weights: the losses of 20 steps, the weights
after them, and predictions.

What PyTorch does differently (the epsilon of Adam and RMSprop, the running variance of batch norm,
clipping) is written out as Keras defines it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="these tests compare with torch: pip install torch")

import nnjit  # noqa: E402
from nnjit import config, losses, optimizers  # noqa: E402
from nnjit import layers as L  # noqa: E402
from nnjit.models import Model, Sequential  # noqa: E402

F = torch.nn.functional
STEPS = 20
IMAGES, DIGITS = nnjit.datasets.digits()
IMAGES = (IMAGES.astype(np.float32) / 16)[..., None]


@pytest.fixture(autouse=True)
def _one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ------------------------------------------------------------- Keras' meaning in torch's functions
def same(size: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    reach = (window - 1) * dilation + 1
    missing = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
    return missing // 2, missing - missing // 2


def conv(x, w, b=None, stride=1, padding="valid", dilation=1, groups=1):
    """x (batch, channels, height, width); w as Keras has it, (kh, kw, in, out)."""
    if padding == "same":
        top = same(x.shape[2], w.shape[0], stride, dilation)
        left = same(x.shape[3], w.shape[1], stride, dilation)
        x = F.pad(x, (*left, *top))
    return F.conv2d(x, w.permute(3, 2, 0, 1), b, stride, 0, dilation, groups)


def depthwise(x, w, b, padding="same", stride=1):
    """w (kh, kw, in, multiplier)."""
    kh, kw, channels, times = w.shape
    w = w.permute(2, 3, 0, 1).reshape(channels * times, 1, kh, kw)
    return conv(x, w.permute(2, 3, 1, 0), b, stride, padding, groups=channels)


def norm(x, w, training, momentum=0.99, epsilon=1e-3):
    """w: gamma, beta, moving mean, moving variance, which training moves."""
    gamma, beta, mean, variance = w
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        with torch.no_grad():
            w[2] += (mean - w[2]) * (1 - momentum)
            w[3] += (variance - w[3]) * (1 - momentum)
    return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, epsilon) if not training else (
        (x - mean[:, None, None]) / torch.sqrt(variance + epsilon)[:, None, None]
        * gamma[:, None, None] + beta[:, None, None]
    )  # fmt: skip


def flat(x):
    """Keras' order of (batch, height, width, channels)."""
    return x.permute(0, 2, 3, 1).flatten(1)


def rows(x):
    return torch.as_tensor(x).permute(0, 3, 1, 2)


class Rule:
    """An optimizer as Keras defines it, on torch tensors."""

    def __init__(self, step, clip=lambda grads: grads, decay=0.0):
        self.step, self.clip, self.decay = step, clip, decay
        self.state: list[dict] = []
        self.t = 0

    def __call__(self, weights):
        self.t += 1
        self.state = self.state or [{} for _ in weights]
        grads = self.clip([w.grad for w in weights])
        with torch.no_grad():
            for w, g, s in zip(weights, grads, self.state, strict=True):
                w -= self.decay * w
                w -= self.step(g, s, self.t)
                w.grad = None


def adam(rate=1e-3, b1=0.9, b2=0.999, epsilon=1e-7):
    def step(g, s, t):
        s["m"] = b1 * s.get("m", 0 * g) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0 * g) + (1 - b2) * g * g
        k = rate * math.sqrt(1 - b2**t) / (1 - b1**t)
        return k * s["m"] / (s["v"].sqrt() + epsilon)

    return step


def sgd(rate=0.01, momentum=0.0, nesterov=False):
    def step(g, s, t):
        s["m"] = momentum * s.get("m", 0 * g) + rate * g
        return momentum * s["m"] + rate * g if nesterov else s["m"]

    return step


def rmsprop(rate=1e-3, rho=0.9, epsilon=1e-7, centered=False):
    def step(g, s, t):
        s["v"] = rho * s.get("v", 0 * g) + (1 - rho) * g * g
        s["g"] = rho * s.get("g", 0 * g) + (1 - rho) * g
        return rate * g / torch.sqrt(s["v"] - (s["g"] ** 2 if centered else 0) + epsilon)

    return step


def clip_norm(limit):
    return lambda grads: [g * (limit / max(g.norm().item(), limit)) for g in grads]


def clip_all(limit):
    def clip(grads):
        norm_ = math.sqrt(sum(g.norm().item() ** 2 for g in grads))
        return [g * (limit / max(norm_, limit)) for g in grads]

    return clip


def log_loss(p, y):
    return F.nll_loss(torch.log(p.clamp(1e-7, 1 - 1e-7)), y)


# ---------------------------------------------------------------------------------------- the race
def race(model, forward, loss, rule, x, y, batch=32, close=2e-5, options=None, penalty=None):
    """Train both; compare every loss, the weights, the state, and predictions.

    close: relative to the largest value; float32 rounding grows over the steps.
    """
    options = options or {}
    weights = [torch.tensor(v.numpy()) for v in model.weights]
    trained = [w.requires_grad_() for w, v in zip(weights, model.weights, strict=True)
               if v.trainable]  # fmt: skip
    for step in range(STEPS):
        at = slice(step * batch, (step + 1) * batch)
        here = {k: v[at] for k, v in options.items()}
        got = model.train_on_batch(x[at], y[at], **here)
        want = loss(forward(weights, x[at], True), torch.as_tensor(y[at]), **here)
        if penalty is not None:
            want = want + penalty(weights)
        want.backward()
        rule(trained)
        assert np.isclose(got, want.item(), rtol=close, atol=close), (step, got, want.item())
    for v, w in zip(model.weights, weights, strict=True):
        near(v.numpy(), w, 10 * close, v.name)
    with torch.no_grad():
        near(model.predict(x[:7], verbose=0), forward(weights, x[:7], False), 10 * close, "predict")


def near(got, want, close, what):
    want = want.detach().numpy()
    scale = max(np.abs(want).max(), 1e-3)
    assert got.shape == want.shape, what
    assert got.dtype == want.dtype, what
    assert np.abs(got - want).max() <= close * scale, what


# -------------------------------------------------------------------------------------- the models
def mlp(dtype="float32", last="softmax", units=10, **options):
    return Sequential([
        L.Dense(24, "relu", input_shape=(64,), dtype=dtype, **options),
        L.Dropout(0.0, dtype=dtype),
        L.Dense(units, last, dtype=dtype, **options),
    ])  # fmt: skip


def mlp_logits(w, x, training):
    return torch.relu(torch.as_tensor(x) @ w[0] + w[1]) @ w[2] + w[3]


def mlp_softmax(w, x, training):
    return mlp_logits(w, x, training).softmax(-1)


def test_mlp():
    model = mlp()
    model.compile("adam", "sparse_categorical_crossentropy")
    x = IMAGES.reshape(-1, 64)
    race(model, mlp_softmax, log_loss, Rule(adam()), x, DIGITS)


def test_mlp_in_float64():
    model = mlp("float64")
    model.compile("adam", "sparse_categorical_crossentropy")
    x = IMAGES.reshape(-1, 64).astype(np.float64)
    race(model, mlp_softmax, log_loss, Rule(adam()), x, DIGITS, close=1e-12)


def test_convolutional_network():
    model = Sequential([
        L.Conv2D(12, (3, 3), activation="relu", input_shape=(8, 8, 1)),
        L.MaxPooling2D((2, 2)),
        L.Conv2D(20, (3, 3), activation="relu", padding="same"),
        L.MaxPooling2D((2, 2), padding="same"),
        L.Flatten(),
        L.Dense(32, activation="relu"),
        L.Dense(10, activation="softmax"),
    ])  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy")

    def forward(w, x, training):
        h = F.max_pool2d(torch.relu(conv(rows(x), w[0], w[1])), 2)
        h = torch.relu(conv(h, w[2], w[3], padding="same"))
        h = F.max_pool2d(F.pad(h, (0, 1, 0, 1)), 2)  # after relu, padding zeros are no winners
        h = torch.relu(flat(h) @ w[4] + w[5])
        return (h @ w[6] + w[7]).softmax(-1)

    race(model, forward, log_loss, Rule(adam()), IMAGES, DIGITS)


def residual_model():
    image = L.Input((8, 8, 1))
    x = L.Conv2D(8, 3, padding="same", use_bias=False)(image)
    x = L.ReLU()(L.BatchNormalization()(x))
    y = L.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x)
    y = L.Activation("relu")(L.BatchNormalization(momentum=0.9)(y))
    y = L.Conv2D(16, 3, padding="same", use_bias=False)(y)
    y = L.BatchNormalization(epsilon=1e-5)(y)
    short = L.Conv2D(16, 1, strides=2, padding="same")(x)
    z = L.ReLU()(L.Add()([y, short]))
    z = L.AveragePooling2D(3, strides=1, padding="same")(z)
    z = L.GlobalAveragePooling2D()(z)
    return Model(image, L.Dense(10)(z))


def test_residual_network_with_batch_normalization():
    model = residual_model()
    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True))
    names = [v.name for v in model.weights]

    def group(w, layer):
        return [x for x, n in zip(w, names, strict=True) if n.split("/")[0] == layer]

    def bn(w, layer, x, training, **options):
        at = [i for i, n in enumerate(names) if n.split("/")[0] == layer]
        return norm(x, [w[i] for i in at], training, **options)

    def forward(w, x, training):
        a, b, c, d = (model.layers[i].name for i in conv_at)
        n1, n2, n3 = (layer.name for layer in model.layers if "normal" in layer.name)
        x = torch.relu(bn(w, n1, conv(rows(x), *group(w, a), padding="same"), training))
        y = conv(x, *group(w, b), stride=2, padding="same")
        y = torch.relu(bn(w, n2, y, training, momentum=0.9))
        y = bn(w, n3, conv(y, *group(w, c), padding="same"), training, epsilon=1e-5)
        z = torch.relu(y + conv(x, *group(w, d), stride=2, padding="same"))
        z = F.avg_pool2d(z, 3, 1, 1, count_include_pad=False).mean((2, 3))
        kernel, bias = group(w, model.layers[-1].name)
        return z @ kernel + bias

    convs = [layer for layer in model.layers if isinstance(layer, L.Conv2D)]
    by_size = sorted(convs, key=lambda c: (c.kernel_size[0] == 1, c.name))
    conv_at = [model.layers.index(c) for c in by_size]
    race(model, forward, F.cross_entropy, Rule(adam()), IMAGES, DIGITS, close=5e-5)


def test_depthwise_grouped_and_dilated_convolutions():
    model = Sequential([
        L.Conv2D(6, 3, strides=2, padding="same", activation="relu", input_shape=(8, 8, 1)),
        L.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
        L.Conv2D(8, 1, activation="relu"),
        L.Conv2D(8, 3, padding="same", groups=2, activation="relu"),
        L.Conv2D(6, 3, padding="same", dilation_rate=2, activation="relu"),
        L.GlobalMaxPooling2D(),
        L.Dense(10),
    ])  # fmt: skip
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))

    def forward(w, x, training):
        h = torch.relu(conv(rows(x), w[0], w[1], 2, "same"))
        h = torch.relu(conv(depthwise(h, w[2], w[3]), w[4], w[5]))
        h = torch.relu(conv(h, w[6], w[7], padding="same", groups=2))
        h = torch.relu(conv(h, w[8], w[9], padding="same", dilation=2))
        return h.amax((2, 3)) @ w[10] + w[11]

    race(model, forward, F.cross_entropy, Rule(sgd()), IMAGES, DIGITS)


@pytest.mark.parametrize("length", [12, None], ids=["fixed", "open"])
def test_embedding(length):
    words = L.Input((length,), dtype="int32")
    e = L.Embedding(17, 6)(words)
    hidden = L.Dense(8, "tanh")(e)
    pooled = L.Flatten()(hidden) if length else _Mean()(hidden)
    model = Model(words, L.Dense(1, "sigmoid")(pooled))
    model.compile("adam", "binary_crossentropy")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 17, (STEPS * 16, 12)).astype(np.int32)
    y = (x[:, :1] > x[:, 1:2]).astype(np.float32)

    def forward(w, x, training):
        h = torch.tanh(w[0][torch.as_tensor(x).long()] @ w[1] + w[2])
        h = h.flatten(1) if length else h.mean(1)
        return torch.sigmoid(h @ w[3] + w[4])

    race(model, forward, F.binary_cross_entropy, Rule(adam()), x, y, batch=16)


class _Mean(L.Layer):
    def call(self, x):
        return nnjit.ops.mean(x, axis=1)


# -------------------------------------------------------------------------------------- optimizers
OPTIMIZERS = {
    "sgd": (lambda: optimizers.SGD(0.1), lambda: Rule(sgd(0.1))),
    "momentum": (lambda: optimizers.SGD(0.05, 0.9), lambda: Rule(sgd(0.05, 0.9))),
    "nesterov": (lambda: optimizers.SGD(0.05, 0.9, True), lambda: Rule(sgd(0.05, 0.9, True))),
    "rmsprop": (optimizers.RMSprop, lambda: Rule(rmsprop())),
    "centered": (lambda: optimizers.RMSprop(centered=True, epsilon=1e-4),
                 lambda: Rule(rmsprop(centered=True, epsilon=1e-4))),
    "adamw": (lambda: optimizers.AdamW(weight_decay=0.1), lambda: Rule(adam(), decay=1e-4)),
    "clipnorm": (lambda: optimizers.SGD(0.5, clipnorm=0.05),
                 lambda: Rule(sgd(0.5), clip_norm(0.05))),
    "global_clipnorm": (lambda: optimizers.SGD(0.5, global_clipnorm=0.1),
                        lambda: Rule(sgd(0.5), clip_all(0.1))),
    "clipvalue": (lambda: optimizers.SGD(0.5, clipvalue=0.002),
                  lambda: Rule(sgd(0.5), lambda gs: [g.clamp(-0.002, 0.002) for g in gs])),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name):
    ours, theirs = OPTIMIZERS[name]
    model = mlp()
    model.compile(ours(), "sparse_categorical_crossentropy")
    # where |g| is about epsilon, RMSprop's step is steep in g: rounding shows
    x = IMAGES.reshape(-1, 64)
    race(model, mlp_softmax, log_loss, theirs(), x, DIGITS, close=5e-5)


# ------------------------------------------------------------------------------- losses and weights
def smoothed(p, y):
    y = y * 0.9 + 0.1 / 10
    return -(y * torch.log(p)).sum(-1).mean()


def weighted(p, y, sample_weight):
    each = F.nll_loss(torch.log(p), y, reduction="none")
    return (each * torch.as_tensor(sample_weight)).mean()


ONE_HOT = np.eye(10, dtype=np.float32)[DIGITS]
NUMBERS = (IMAGES.reshape(-1, 64)[:, ::13] @ np.ones((5, 3))).astype(np.float32)
EVEN = (DIGITS % 2 == 0).astype(np.float32)[:, None]
LOSSES = {
    "one-hot": ("categorical_crossentropy", "softmax", ONE_HOT,
                lambda p, y: -(y * torch.log(p)).sum(-1).mean()),
    "label smoothing": (losses.CategoricalCrossentropy(label_smoothing=0.1), "softmax", ONE_HOT,
                        smoothed),
    "binary": ("binary_crossentropy", "sigmoid", EVEN, F.binary_cross_entropy),
    "binary logits": (losses.BinaryCrossentropy(from_logits=True), None, EVEN,
                      F.binary_cross_entropy_with_logits),
    "mse": ("mse", None, NUMBERS, F.mse_loss),
    "mae": ("mae", None, NUMBERS, F.l1_loss),
    "huber": (losses.Huber(0.7), None, NUMBERS, lambda p, y: F.huber_loss(p, y, delta=0.7)),
}  # fmt: skip
ACTIVATIONS = {"softmax": mlp_softmax, None: mlp_logits,
               "sigmoid": lambda *a: torch.sigmoid(mlp_logits(*a))}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name):
    loss, last, y, theirs = LOSSES[name]
    model = mlp(last=last, units=y.shape[1])
    model.compile(optimizers.SGD(0.1), loss)
    x = IMAGES.reshape(-1, 64)
    race(model, ACTIVATIONS[last], theirs, Rule(sgd(0.1)), x, y)


def test_sample_weights():
    model = mlp()
    model.compile(optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    weight = np.random.default_rng(0).uniform(0, 2, len(DIGITS)).astype(np.float32)
    options = {"sample_weight": weight}
    x = IMAGES.reshape(-1, 64)
    race(model, mlp_softmax, weighted, Rule(sgd(0.1)), x, DIGITS, options=options)


def test_class_weights_are_sample_weights_by_label():
    x, by_class = IMAGES.reshape(-1, 64), {3: 2.5, 7: 0.0}
    found = []
    for options in (
        {"class_weight": by_class},
        {"sample_weight": np.array([by_class.get(int(d), 1.0) for d in DIGITS], np.float32)},
    ):
        with config.seeded(1):
            model = mlp()
        model.compile(optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        history = model.fit(x, DIGITS, epochs=2, verbose=0, **options)
        found.append((history.history["loss"], model.get_weights()))
    assert found[0][0] == found[1][0]
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert (a == b).all()


def test_regularizers():
    model = mlp(kernel_regularizer=nnjit.regularizers.L2(0.01))
    model.compile(optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    x = IMAGES.reshape(-1, 64)

    def penalty(w):
        return 0.01 * (w[0].square().sum() + w[2].square().sum())

    race(model, mlp_softmax, log_loss, Rule(sgd(0.1)), x, DIGITS, penalty=penalty)
