"""Compile and run a small function, and compare it with NumPy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from nnjit import ops
from nnjit.errors import NnjitError
from nnjit.graph import Graph, input_node
from nnjit.runtime.executable import build
from nnjit.runtime.store import Store
from nnjit.spec import Dim, Spec, symbol

TOLERANCE = 1e-5  # float32, sums of 24 products of values below 2


def self_test() -> dict[str, Any]:
    """{"ok", "text", "seconds", "difference"}: relu(x @ w + b) and its softmax on device "cpu"."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[Dim, ...]] = {"x": (symbol("batch"), 24), "w": (24, 40), "b": (40,)}
    arrays = {"x": rng.random((33, 24)), "w": rng.random((24, 40)) - 0.5, "b": rng.random(40)}
    values = {k: a.astype(np.float32) for k, a in arrays.items()}
    x, w, b = (input_node(k, Spec(s)) for k, s in shapes.items())
    graph = Graph("self_test", {"y": ops.softmax(ops.relu(ops.matmul(x, w) + b))})
    start = time.perf_counter()
    try:
        found = build(graph, Store(), "cpu").run(values)["y"]
    except (NnjitError, OSError) as error:
        return {"ok": False, "text": f"failed: {error}", "seconds": None, "difference": None}
    seconds = time.perf_counter() - start
    h = np.maximum(arrays["x"] @ arrays["w"] + arrays["b"], 0)
    e = np.exp(h - h.max(axis=-1, keepdims=True))
    difference = float(np.abs(found - e / e.sum(axis=-1, keepdims=True)).max())
    ok = difference < TOLERANCE
    verdict = "passed" if ok else "FAILED"
    text = f"{verdict}: largest difference from NumPy {difference:.1e}, {seconds:.2f} s"
    return {"ok": ok, "text": text, "seconds": seconds, "difference": difference}
