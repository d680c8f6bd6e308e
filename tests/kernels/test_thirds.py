"""Products of float32 in AMX: how numbers are split, tiles, whole products; machine code where this
CPU has AMX, and what it means in NumPy.
"""

from __future__ import annotations

import numpy as np
import pytest

from nnjit.errors import ConfigError
from nnjit.kernels import contraction_thirds, target, thirds
from nnjit.kernels.bf16 import expand
from nnjit.kernels.contraction import matmul_template
from nnjit.kernels.recipe import Epilogue, Recipe, Step
from nnjit.kernels.template import Template
from tests.kernels.harness import run_recipe, slot_update

JIT = [False, True] if target.host_multiplies_blocks() else [False]


@pytest.fixture
def small(monkeypatch):
    """Products of any size are written for AMX, whatever this CPU has."""
    monkeypatch.setattr(target, "splits_floats", lambda: True)
    monkeypatch.setattr(contraction_thirds, "LEAST", 1)


def product(*args, **options) -> Recipe:
    recipe = matmul_template("product", *args, **options)
    assert any("product_tile" in line for line in recipe.steps[-1].template.imports)
    return recipe


def split_recipe(side: str, along: bool, lines: int) -> Recipe:
    definition = f'split = split_thirds(side="{side}", along={along}, lines={lines})'
    t = Template(
        "split_case", "one block", ("from nnjit.kernels.thirds import split_thirds", definition),
        ("ld", "count", "depth"), (("src", "f4"), ("dst", "u4")),
        ("split(src, 3, ld, count, depth, dst, 5)",), 1,
    )  # fmt: skip
    return Recipe((Step(t, ("a", "out")),))


def hard(rng, count: int) -> np.ndarray:
    """Numbers of all sizes whose thirds are normal, and where rounding is at its limits."""
    x = rng.standard_normal(count) * 2.0 ** rng.integers(-90, 120, count)
    x[::7] = (1 + 2.0**-8 + 2.0 ** -rng.integers(9, 24, len(x[::7]))) * rng.choice([-1, 1])
    return x.astype(np.float32)


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize("along", [True, False])
@pytest.mark.parametrize(("side", "lines"), [("a", 32), ("b", 32), ("b", 16)])
def test_thirds_are_the_number(side, lines, along, jit):
    """Their sum is exact; what does not exist is 0, or for rows of A left alone."""
    rng = np.random.default_rng(0)
    for count, depth in ((lines, 64), (lines - 3, 37), (1, 1), (lines, 0)):
        ld = 70
        src = np.full(3 + 70 * 70, np.nan, np.float32)
        numbers = hard(rng, count * depth).reshape(count, depth)
        at = 3 + np.add.outer(np.arange(count) * (ld if along else 1),
                              np.arange(depth) * (1 if along else ld))  # fmt: skip
        src[at] = numbers
        blocks = -(-depth // 32)
        out = np.full(5 + blocks * thirds.block_size(lines) + 9, 77, np.uint32)
        symbols = {"ld": ld, "count": count, "depth": depth}
        got = run_recipe(split_recipe(side, along, lines), {"a": src, "out": out}, symbols=symbols,
                         jit=jit)["out"]  # fmt: skip
        assert (got[:5] == 77).all()
        assert (got[-9:] == 77).all()
        halves = expand(got[5:-9].view(np.uint16))
        if side == "a":
            laid = halves.reshape(blocks, 3, lines, 32).transpose(1, 2, 0, 3)
            rest = got[5:-9].reshape(blocks, 3, lines, 16)[:, :, count:]
            assert np.isin(rest, (0, 77)).all()
        else:
            laid = halves.reshape(blocks, 3, 16, lines, 2).transpose(1, 3, 0, 2, 4)
        laid = laid.reshape(3, lines, 32 * blocks).astype(np.float64)
        assert (laid[:, :count].sum(0)[:, :depth] == numbers).all()
        assert (laid[:, :count, depth:] == 0).all()
        assert side == "a" or (laid[:, count:] == 0).all()
        assert (np.abs(laid[1, :count]) <= np.abs(laid[0, :count]) * 2.0**-8).all()


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize("along", [True, False])
def test_what_is_not_finite_is_its_first_third(along, jit):
    x = np.array([np.inf, -np.inf, np.nan, 3.4028235e38, 3.39e38, -0.0, 1e-40], np.float32)
    x = np.append(x, np.array([0xFFFFFFFF], np.uint32).view(np.float32))
    out = np.zeros(5 + thirds.block_size(32), np.uint32)
    src = np.zeros(3 + 70 * 8, np.float32)
    src[3 + np.arange(8) * (1 if along else 70)] = x
    got = run_recipe(split_recipe("a", along, 32), {"a": src, "out": out},
                     symbols={"ld": 70, "count": 1, "depth": 8}, jit=jit)["out"]  # fmt: skip
    first, second, third = expand(got[5:].view(np.uint16)).reshape(3, 32, 32)[:, 0, :8]
    assert (second[:3] == 0).all()
    assert (third[:3] == 0).all()
    np.testing.assert_array_equal(first[:3], x[:3])
    np.testing.assert_allclose((first + second + third)[3:5], x[3:5], rtol=2.0**-8)
    np.testing.assert_allclose((first + second + third)[5:7], x[5:7], atol=2.0**-133)
    assert np.isnan(first[7])


CASES = [
    # M, N, K, transposed, epilogue
    (70, 65, 100, "", Epilogue()),
    (33, 50, 700, "", Epilogue(bias=True, final="relu")),
    (300, 40, 1536, "b", Epilogue(final="mul")),
    (1, 16, 1100, "b", Epilogue(bias=True, final="add")),
    (40, 33, 31, "b", Epilogue(final="mask")),
    (100, 48, 1030, "", Epilogue(final="add_relu")),
    (65, 96, 1111, "a", Epilogue()),
    (5, 17, 3, "a", Epilogue(final="add")),
]


def operands(M: int, N: int, K: int, transposed: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(M)
    shapes = {"a": (K, M) if "a" in transposed else (M, K), "b": (N, K) if "b" in transposed
              else (K, N), "bias": (N,), "mask": (M, N), "out": (M, N)}  # fmt: skip
    v = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    return {**v, "residual": v["mask"]}


def expected(v: dict[str, np.ndarray], transposed: str, ep: Epilogue) -> np.ndarray:
    a, b, m = (v[n].astype(np.float64) for n in ("a", "b", "mask"))
    with np.errstate(all="ignore"):
        y = (a.T if "a" in transposed else a) @ (b.T if "b" in transposed else b)
        y = y + v["bias"] if ep.bias else y
        y = {"mul": y * m, "mask": np.where(m > 0, y, 0)}.get(ep.final, y)
        y = y + m if ep.final.startswith("add") else y
        return np.maximum(y, 0) if ep.final.endswith("relu") else y


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize("case", CASES)
def test_products(case, jit, small):
    """Ragged sizes, rows or reductions that only a run knows, none at all; cut in any way, the same
    bits.
    """
    *sizes, transposed, ep = case
    options = {"transpose_a": "a" in transposed, "transpose_b": "b" in transposed, "epilogue": ep}
    v = operands(*sizes, transposed)
    got = run_recipe(product(*sizes, **options), v, jit=jit)["out"]
    np.testing.assert_allclose(got, expected(v, transposed, ep), rtol=1e-5, atol=1e-4)
    dims = list(sizes)
    dims[2 if "a" in transposed else 0] = "3 * n"
    recipe = product(*dims, **options)
    for n in (0, 1, 11, 400):
        sizes[2 if "a" in transposed else 0] = 3 * n
        v = operands(*sizes, transposed)
        want = expected(v, transposed, ep)
        first = run_recipe(recipe, v, symbols={"n": n}, jit=jit)["out"]
        np.testing.assert_allclose(first, want, rtol=1e-5, atol=2e-4)
        for seed in range(2):
            rng = np.random.default_rng(seed)
            assert_in_order(recipe, v, {"n": n}, rng, jit, first)


def assert_in_order(recipe, v, symbols, rng, jit, want):
    """Indices in any pieces, but in order: stages follow each other."""

    class InOrder:
        def integers(self, *args):
            return rng.integers(*args)

        def shuffle(self, pieces):
            pass

    again = run_recipe(recipe, v, symbols=symbols, jit=jit, rng=InOrder())["out"]
    np.testing.assert_array_equal(again, want)


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize("transposed", ["", "a", "b"])
def test_what_is_not_finite_goes_where_float32_puts_it(transposed, jit, small):
    M, N, K = 40, 37, 70
    recipe = product(M, N, K, transpose_a="a" in transposed, transpose_b="b" in transposed)
    v = operands(M, N, K, transposed)
    a = v["a"].T if "a" in transposed else v["a"]
    b = v["b"].T if "b" in transposed else v["b"]
    a[3, 5], a[4, 6], a[5, 0], a[5, 1], a[6, 2], a[7, 9] = (
        np.inf,
        -np.inf,
        np.inf,
        -np.inf,
        np.nan,
        3e38,
    )
    b[7, 2], b[8, 4], b[9, 5] = np.inf, np.nan, 3e38
    b[5, 20:] = 1  # thirds of which two are 0
    got = run_recipe(recipe, v, jit=jit)["out"]
    with np.errstate(all="ignore"):
        want = (a.astype(np.float64) @ b).astype(np.float32)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(got[np.isinf(want)], want[np.isinf(want)])
    finite = np.isfinite(want)
    np.testing.assert_allclose(got[finite], want[finite], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize("sizes", [(69, 40), (33, 1100)])
def test_updates_where_the_gradient_is_computed(sizes, jit, small):
    """y and a slot, which the tail reads and writes; one part of the reduction, and several."""
    M, N = sizes

    ep = Epilogue(tail=slot_update, extra_params=(("m", "f4"), ("scale", "f4")), apart=True)
    cases = [(n, "2 * n") for n in (0, 1, 17, 300, 520)] + [(n, 2 * n) for n in (150, 300)]
    for n, K in cases:
        recipe = product(M, N, K, transpose_a=True, epilogue=ep)
        v = operands(M, N, 2 * n, "a")
        v["m"], v["scale"] = v.pop("mask"), v.pop("bias")
        m = v["m"] * v["scale"] + v["a"].astype(np.float64).T @ v["b"]
        got = run_recipe(recipe, v, ("out", "m"), symbols={"n": n}, jit=jit)
        np.testing.assert_allclose(got["m"], m, rtol=1e-5, atol=2e-4)
        np.testing.assert_allclose(got["out"], v["out"] - got["m"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("jit", JIT)
def test_sums_of_slices_go_on_where_they_lie(jit, small):
    """y is both what is added to and the result."""
    for K in (40, 1300):
        ep = Epilogue(final="add", apart=True)
        (step,) = product(37, 40, K, transpose_a=True, epilogue=ep).steps
        args = tuple("out" if role == "residual" else role for role in step.args)
        recipe = Recipe((Step(step.template, args),), product(37, 40, K, transpose_a=True,
                                                              epilogue=ep).temps)  # fmt: skip
        v = operands(37, 40, K, "a")
        want = v["out"] + v["a"].astype(np.float64).T @ v["b"]
        got = run_recipe(recipe, v, jit=jit)["out"]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-4)


@pytest.mark.skipif(not target.host_multiplies_blocks(), reason="this CPU has no AMX")
@pytest.mark.parametrize("K", [256, 4096])
def test_sums_are_as_near_to_the_exact_ones_as_those_of_float32(K, monkeypatch):
    rng = np.random.default_rng(0)
    v = {n: rng.standard_normal((256, K)).astype(np.float32) for n in ("a", "b")}
    v["out"] = np.zeros((256, 256), np.float32)
    want = v["a"].astype(np.float64) @ v["b"].T.astype(np.float64)
    errors = []
    for asked in ("amx", "fma"):
        monkeypatch.setenv("NNJIT_FLOAT32", asked)
        recipe = matmul_template("product", 256, 256, K, transpose_b=True)
        errors.append(np.abs(run_recipe(recipe, v)["out"] - want).mean())
    assert errors[0] <= errors[1]


def test_small_products_and_other_dtypes_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(target, "splits_floats", lambda: True)
    for sizes, dtype in (((255, 256, 256), "f4"), (("batch", 256, 256), "f4"),
                         ((256, 256, 256), "f8"), ((256, "n", 256), "f4")):  # fmt: skip
        recipe = matmul_template("product", *sizes, dtype=dtype)
        assert not any("product_tile" in line for line in recipe.steps[-1].template.imports)
    product("256 * batch", 256, 256)


def test_errors_name_the_option(monkeypatch):
    with pytest.raises(ValueError, match="split_thirds"):
        thirds.split_thirds(side="c", along=True, lines=32)
    with pytest.raises(ValueError, match="product_tile"):
        thirds.product_tile(vectors=3)
    monkeypatch.setenv("NNJIT_FLOAT32", "thirds")
    with pytest.raises(ConfigError, match="NNJIT_FLOAT32='thirds': expected fma or amx"):
        target.splits_floats()
    monkeypatch.setenv("NNJIT_FLOAT32", "amx")
    monkeypatch.setattr(target, "host_multiplies_blocks", lambda: False)
    with pytest.raises(ConfigError, match="NNJIT_FLOAT32=amx"):
        target.splits_floats()
