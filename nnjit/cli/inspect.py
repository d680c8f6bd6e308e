"""nnjit inspect: a model at every stage, from layers to emitted source."""

from __future__ import annotations

from typing import Any

import click

from nnjit.cli.common import debug_option, json_option, print_json

STAGES = ("summary", "graph", "plan", "source")
STEPS = ("train", "evaluate", "predict")


@click.command()
@click.argument("subject", metavar="RUN_OR_CONFIG")
@click.option("--stage", type=click.Choice(STAGES), default="summary", show_default=True)
@click.option("--step", type=click.Choice(STEPS), default="train", show_default=True)
@click.option(
    "--batch-size", type=click.IntRange(1), default=32, show_default=True, help="For the plan."
)
@json_option
@debug_option
def command(subject: str, stage: str, step: str, batch_size: int, as_json: bool) -> None:
    """Show the model of a run folder or a configuration file. Nothing is compiled or trained.

    summary: layers, shapes, parameters. graph: every operation of the step. plan: launches, buffers
    and their places for one batch size. source: the emitted kernels.
    """
    from nnjit.runconfig.opening import open_subject

    opened = open_subject(subject, "python")  # plans and emits as "cpu" does, without a compiler
    if stage == "summary":
        found = _summary(opened.model)
    else:
        found = _stage(opened.executable(step), stage, batch_size)
    if as_json:
        text = found.pop("text")
        print_json({"subject": subject, "stage": stage, "step": step, **(found or {"text": text})})
    else:
        click.echo(found["text"])


def _summary(model: Any) -> dict[str, Any]:
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    layers = [
        {
            "name": layer.name,
            "type": type(layer).__name__,
            "trainable": layer.trainable,
            "weights": [{"name": w.name, "shape": list(w.shape)} for w in layer.weights],
        }
        for layer in model.layers
    ]
    return {"text": "\n".join(lines), "layers": layers}


def _stage(executable: Any, stage: str, batch_size: int) -> dict[str, Any]:
    """The stage as text, and what --json adds to it."""
    from nnjit.kernels.template import render
    from nnjit.printing import show

    extents = {"batch": batch_size}
    launched = () if stage == "graph" else executable.launches(extents)
    if stage == "graph":
        text = show(executable.graph)
        return {"text": text, "nodes": [t.strip() for t in text.splitlines()[1:]]}
    if stage == "source":
        kernels = {x.template.name: render(x.template) for x in launched}
        return {"text": executable.source(), "kernels": kernels}
    arrangement = executable.arrange(**extents)
    launches = [
        {
            "kernel": x.template.name,
            "layers": list(x.scopes),
            "ops": x.ops,
            "flops": x.flop_count(extents),
            "bytes": x.byte_count(extents),
        }
        for x in launched
    ]
    return {
        "text": executable.listing(**extents),
        "batch_size": batch_size,
        "slices": executable.slices_text(extents) or None,
        "work_bytes": arrangement.work,
        "scratch_bytes_per_thread": arrangement.scratch,
        "launches": launches,
    }
