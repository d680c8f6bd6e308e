"""The workloads in ONNX Runtime: PyTorch's models, exported."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import onnxruntime
import torch

from bench import models_torch
from bench.workloads import BATCHES, Workload


def predictor(work: Workload, threads: int) -> Callable[[int], Any]:
    """Outputs for batch i."""
    net = models_torch.build(work).eval().to(memory_format=torch.contiguous_format)
    x, _ = work.data()
    xs = [tuple(models_torch.tensor(a[i]).contiguous() for a in x) for i in range(BATCHES)]
    names = [f"x{i}" for i in range(len(x))]
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter without onnxscript is deprecated
        torch.onnx.export(net, xs[0], file, input_names=names, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(file.getvalue(), options, ["CPUExecutionProvider"])
    feeds = [dict(zip(names, [t.numpy() for t in b], strict=True)) for b in xs]
    return lambda i: session.run(None, feeds[i % BATCHES])
