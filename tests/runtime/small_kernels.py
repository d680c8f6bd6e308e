"""Kernel files for tests of the runtime."""

from nnjit.runtime.cache import KernelSource


def make_source(name, symbols, params, body):
    """A kernel file: symbols are names, params (name, NumPy type) pairs, body lines."""
    kinds = ["int64"] * (3 + len(symbols)) + [f"*{kind}" for _, kind in params]
    signature = f"void({', '.join(kinds)})"
    names = ", ".join(["lo", "hi", "tid", *symbols, *(n for n, _ in params)])
    lines = [
        f"# signature: {signature}",
        f'"""{name}: made for a test."""',
        "from numpy import float32 as f4",
        "",
        "",
        f"def {name}({names}):",
        *(f"    {line}" for line in body),
        "",
    ]
    return KernelSource(name, signature, "\n".join(lines))


def scale(factor=2.0, name="scale"):
    """y = factor * x + n."""
    body = ["for i in range(lo, hi):", f"    y[i] = x[i] * f4({factor}) + f4(n)"]
    return make_source(name, ["n"], [("x", "float32"), ("y", "float32")], body)
