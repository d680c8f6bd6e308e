"""Optimizers over five steps, against Keras' formulas in NumPy and against torch.optim."""

import json

import numpy as np
import pytest

from nnjit import constraints, optimizers
from nnjit.errors import ArgumentError
from nnjit.graph import Graph, Scope, enter, input_node, interpret
from nnjit.layers import Variable
from nnjit.optimizers import schedules

RNG = np.random.default_rng(0)
STEPS = 5
START = [RNG.standard_normal((3, 4)), RNG.standard_normal(4)]
GRADS = [[RNG.standard_normal(w.shape) for w in START] for _ in range(STEPS)]


def variables(dtype="float64"):
    made = [Variable(f"w{i}", w.shape, dtype) for i, w in enumerate(START)]
    for v, w in zip(made, START, strict=True):
        v.assign(w)
    return made


def step(opt, params, grads):
    """One step through the interpreter; the variables keep the result."""
    nodes = [input_node(f"g{i}", v.spec) for i, v in enumerate(params)]
    state = [*params, *opt.slots(params)]
    scope = Scope()
    with enter(scope):
        opt.updates(params, nodes)
    values = {v.name: v.numpy() for v in state} | {f"g{i}": g for i, g in enumerate(grads)}
    graph = Graph("step", {}, scope.updates)
    updates = interpret(graph, values)[1]
    by_name = {v.name: v for v in state}
    assert len(by_name) == len(state)
    for name, value in updates.items():
        by_name[name].assign(value)
    return graph


def train(opt, dtype="float64", grads=GRADS):
    params = variables(dtype)
    for g in grads:
        step(opt, params, [x.astype(dtype) for x in g])
    return [v.numpy() for v in params]


# ------------------------------------------------------------------- Keras' formulas, one number
# f(w, g, state, t) -> w, written out from Keras' documentation; state is a dict per parameter.
def sgd(w, g, s, t, lr=0.01):
    return w - lr * g


def nesterov(w, g, s, t, lr=0.01, mu=0.9):
    s["m"] = mu * s.get("m", 0) - lr * g
    return w + mu * s["m"] - lr * g


def adam(w, g, s, t, lr=0.001, b1=0.9, b2=0.999, eps=1e-7, amsgrad=False):
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g * g
    s["h"] = np.maximum(s.get("h", 0), s["v"])
    v = s["h"] if amsgrad else s["v"]
    return w - lr * np.sqrt(1 - b2**t) / (1 - b1**t) * s["m"] / (np.sqrt(v) + eps)


def adamw(w, g, s, t):
    return adam(w - 0.004 * 0.001 * w, g, s, t)


def rmsprop(w, g, s, t, lr=0.001, rho=0.9, eps=1e-7, centered=False, mu=0.0):
    s["v"] = rho * s.get("v", 0) + (1 - rho) * g * g
    s["g"] = rho * s.get("g", 0) + (1 - rho) * g
    below = s["v"] - (s["g"] ** 2 if centered else 0) + eps
    s["p"] = mu * s.get("p", 0) + lr * g / np.sqrt(below)
    return w - s["p"]


def adagrad(w, g, s, t, lr=0.001):
    s["a"] = s.get("a", 0.1) + g * g
    return w - lr * g / np.sqrt(s["a"] + 1e-7)


def adadelta(w, g, s, t, lr=0.001, rho=0.95, eps=1e-7):
    s["g"] = rho * s.get("g", 0) + (1 - rho) * g * g
    delta = -np.sqrt(s.get("d", 0) + eps) / np.sqrt(s["g"] + eps) * g
    s["d"] = rho * s.get("d", 0) + (1 - rho) * delta * delta
    return w + lr * delta


def adamax(w, g, s, t, lr=0.001, b1=0.9, b2=0.999):
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["u"] = np.maximum(b2 * s.get("u", 0), np.abs(g))
    return w - lr * s["m"] / ((1 - b1**t) * (s["u"] + 1e-7))


def nadam(w, g, s, t, lr=0.001, b1=0.9, b2=0.999):
    u, u1 = b1 * (1 - 0.5 * 0.96**t), b1 * (1 - 0.5 * 0.96 ** (t + 1))
    s["p"] = s.get("p", 1.0) * u
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g * g
    m = u1 * s["m"] / (1 - s["p"] * u1) + (1 - u) * g / (1 - s["p"])
    return w - m * lr / (np.sqrt(s["v"] / (1 - b2**t)) + 1e-7)


def lion(w, g, s, t, lr=0.001, b1=0.9, b2=0.99):
    m = s.get("m", 0)
    s["m"] = b2 * m + (1 - b2) * g
    return w - lr * np.sign(b1 * m + (1 - b1) * g)


FORMULAS = [
    ("sgd", {}, sgd),
    ("SGD", {"momentum": 0.9, "nesterov": True}, nesterov),
    ("adam", {}, adam),
    ("Adam", {"amsgrad": True, "beta_2": 0.5},
     lambda *a: adam(*a, b2=0.5, amsgrad=True)),
    ("adamw", {}, adamw),
    ("rmsprop", {}, rmsprop),
    ("RMSprop", {"centered": True, "momentum": 0.7},
     lambda *a: rmsprop(*a, centered=True, mu=0.7)),
    ("adagrad", {}, adagrad),
    ("adadelta", {}, adadelta),
    ("adamax", {}, adamax),
    ("nadam", {}, nadam),
    ("lion", {}, lion),
]  # fmt: skip


def make(name, options):
    return optimizers.get({"class_name": name, "config": options})


def name_of(value):
    """The same in every process, so that tests can be spread over several."""
    return getattr(value, "__name__", str(value))[:24]


@pytest.mark.parametrize(("name", "options", "formula"), FORMULAS, ids=name_of)
def test_formulas_of_keras(name, options, formula):
    expected, states = [w.copy() for w in START], [{}, {}]
    for t, grads in enumerate(GRADS, 1):
        expected = [formula(w, g, s, t) for w, g, s in zip(expected, grads, states, strict=True)]
    for dtype, tol in (("float64", 1e-13), ("float32", 2e-6)):
        for ours, theirs in zip(train(make(name, options), dtype), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=tol, atol=tol)


# torch adds epsilon elsewhere: a tiny one makes the two equal
TORCH = [
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True}, {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    ("Adam", {"epsilon": 1e-14}, {"lr": 0.001, "eps": 1e-14}),
    ("AdamW", {"epsilon": 1e-14, "weight_decay": 0.1},
     {"lr": 0.001, "eps": 1e-14, "weight_decay": 0.1}),
    ("RMSprop", {"epsilon": 1e-14, "momentum": 0.5},
     {"lr": 0.001, "eps": 1e-14, "alpha": 0.9, "momentum": 0.5}),
    ("Adagrad", {"epsilon": 1e-14}, {"lr": 0.001, "eps": 1e-14, "initial_accumulator_value": 0.1}),
    ("Adadelta", {"learning_rate": 0.5}, {"lr": 0.5, "eps": 1e-7, "rho": 0.95}),
    ("Adamax", {"epsilon": 1e-14}, {"lr": 0.001, "eps": 1e-14}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "theirs"), TORCH)
def test_torch_agrees(name, options, theirs):
    torch = pytest.importorskip("torch", reason="compares with torch, which is missing")
    params = [torch.tensor(w, requires_grad=True) for w in START]
    opt = getattr(torch.optim, name)(params, **theirs)
    for grads in GRADS:
        for p, g in zip(params, grads, strict=True):
            p.grad = torch.tensor(g)
        opt.step()
    for ours, p in zip(train(make(name, options)), params, strict=True):
        np.testing.assert_allclose(ours, p.detach().numpy(), rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------------ the options
def moved(**options):
    """-(change of the parameters) after one step of SGD with rate 1."""
    params = variables()
    step(optimizers.SGD(1.0, **options), params, GRADS[0])
    return [w - v.numpy() for w, v in zip(START, params, strict=True)]


def test_clipping():
    norms = [np.linalg.norm(g) for g in GRADS[0]]
    for got, g, n in zip(moved(clipnorm=1.5), GRADS[0], norms, strict=True):
        np.testing.assert_allclose(got, g * min(1, 1.5 / n), atol=1e-12)
    for got, g in zip(moved(clipvalue=0.3), GRADS[0], strict=True):
        np.testing.assert_allclose(got, np.clip(g, -0.3, 0.3), atol=1e-12)
    total = np.sqrt(sum(n**2 for n in norms))
    for limit in (0.5, 100.0):
        for got, g in zip(moved(global_clipnorm=limit), GRADS[0], strict=True):
            np.testing.assert_allclose(got, g * min(1, limit / total), atol=1e-12)


def test_gradients_of_zero_are_not_divided_by_their_norm():
    params = variables()
    step(optimizers.SGD(1.0, clipnorm=1.0), params, [np.zeros_like(w) for w in START])
    for v, w in zip(params, START, strict=True):
        np.testing.assert_array_equal(v.numpy(), w)


def test_weight_decay_and_exclusion():
    opt = optimizers.SGD(0.1, weight_decay=0.5)
    opt.exclude_from_weight_decay(var_names=["w1"])
    params = variables()
    step(opt, params, GRADS[0])
    np.testing.assert_allclose(params[0].numpy(), START[0] * 0.95 - 0.1 * GRADS[0][0])
    np.testing.assert_allclose(params[1].numpy(), START[1] - 0.1 * GRADS[0][1])


def test_gradient_accumulation_is_one_step_with_the_mean():
    mean = [[(GRADS[i][k] + GRADS[i + 1][k]) / 2 for k in range(2)] for i in (0, 2)]
    expected = train(optimizers.Adam(0.1), grads=mean)
    for count in (4, 5):  # the fifth is only gathered
        found = train(optimizers.Adam(0.1, gradient_accumulation_steps=2), grads=GRADS[:count])
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_constraints_follow_the_update():
    params = variables()
    params[0].constraint = constraints.NonNeg()
    step(optimizers.SGD(0.1), params, GRADS[0])
    np.testing.assert_allclose(params[0].numpy(), np.maximum(START[0] - 0.1 * GRADS[0][0], 0))


def test_the_learning_rate_is_state():
    opt = optimizers.SGD(0.5)
    params = variables()
    step(opt, params, GRADS[0])
    assert opt.learning_rate == 0.5
    opt.learning_rate = 0.25
    step(opt, params, GRADS[1])
    np.testing.assert_allclose(params[0].numpy(), START[0] - 0.5 * GRADS[0][0] - 0.25 * GRADS[1][0])
    assert int(opt.iterations.numpy()) == 2


def test_a_schedule_counts_the_steps_done():
    opt = optimizers.SGD(schedules.PiecewiseConstantDecay([0], [1.0, 0.5]))
    params = variables()
    for i in range(2):
        step(opt, params, GRADS[i])
    np.testing.assert_allclose(params[0].numpy(), START[0] - GRADS[0][0] - 0.5 * GRADS[1][0])
    assert opt.learning_rate == 0.5
    with pytest.raises(ArgumentError, match="schedule and cannot be set"):
        opt.learning_rate = 0.1


def test_state_is_named_after_the_parameters():
    opt = optimizers.Adam()
    params = variables()
    names = [v.name for v in opt.slots(params)]
    assert names == [
        "adam/iterations", "adam/learning_rate",
        "adam/m/w0", "adam/m/w1", "adam/v/w0", "adam/v/w1",
    ]  # fmt: skip
    assert opt.slots(params) == opt.slots(params)
    assert [v.like for v in opt.slots(params)[2:]] == params * 2


def test_names_are_lower_case_class_names():
    for name in ("sgd", "adam", "adamw", "rmsprop", "nadam", "adamax", "lion"):
        assert optimizers.get(name).name == name


def test_all_parameters_get_one_expression_over_shared_scalars():
    """What lets the compiler merge all updates: operations per parameter, none of them scalar."""
    opt = optimizers.Adam(global_clipnorm=1.0, weight_decay=0.1)
    graph = step(opt, variables("float32"), [g.astype("float32") for g in GRADS[0]])

    def text(node, of):
        if node.rank == 0 and not node.is_leaf:
            return id(node)
        if node.is_leaf:
            value = node.attrs.get("value")
            return repr(value) if value is not None else node.name.replace(of, "w").replace(
                f"g{of[1]}", "g")  # fmt: skip
        return node.op.name, tuple(text(x, of) for x in node.inputs)

    found = {leaf.name: value for leaf, value in graph.updates.items()}
    assert text(found["w0"], "w0") == text(found["w1"], "w1")


ERRORS = [
    (lambda: optimizers.get("adm"), "did you mean 'adam'"),
    (lambda: optimizers.Adam(lr=0.1), "unknown argument 'lr'"),
    (lambda: optimizers.Adam(clipnorm=1.0, clipvalue=1.0), "only one of clipnorm=1.0 and clipv"),
    (lambda: optimizers.Adam(use_ema=True), "use_ema"),
    (lambda: optimizers.Adam(loss_scale_factor=2.0), "loss_scale_factor"),
    (lambda: optimizers.Adam(learning_rate="fast"), "learning_rate='fast'"),
    (lambda: optimizers.Adam(learning_rate=-1), "learning_rate=-1"),
    (lambda: optimizers.SGD(momentum=2), "momentum=2"),
    (lambda: optimizers.SGD(gradient_accumulation_steps=1), "gradient_accumulation_steps=1"),
]


@pytest.mark.parametrize(("make", "message"), ERRORS)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_config_round_trip():
    opt = optimizers.AdamW(schedules.CosineDecay(0.1, 100), weight_decay=0.2, clipnorm=1.0)
    again = optimizers.get(
        {"class_name": "AdamW", "config": json.loads(json.dumps(opt.get_config()))}
    )
    assert again.get_config() == opt.get_config()
    assert isinstance(again.schedule, schedules.CosineDecay)
    opt = optimizers.Adam()
    opt.learning_rate = 0.5
    assert optimizers.Adam.from_config(opt.get_config()).learning_rate == 0.5
