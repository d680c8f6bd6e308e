"""nnjit inspect: a model at every stage, from layers to emitted source."""

from __future__ import annotations

import click

from nnjit.cli.common import debug_option, json_option, print_json

STAGES = ("summary", "graph", "plan", "source")
STEPS = ("train", "evaluate", "predict")


@click.command()
@click.argument("subject", metavar="RUN_OR_CONFIG")
@click.option("--stage", type=click.Choice(STAGES), default="summary", show_default=True)
@click.option("--step", type=click.Choice(STEPS), default="train", show_default=True)
@click.option("--batch-size", default=32, show_default=True, help="For the plan's sizes.")
@json_option
@debug_option
def command(subject: str, stage: str, step: str, batch_size: int, as_json: bool) -> None:
    """Show the model of a run folder or a configuration file. Nothing is compiled or trained.

    summary: layers, shapes, parameters. graph: every operation of the step. plan: launches, buffers
    and their places for one batch size. source: the emitted kernels.
    """
    from nnjit.graph import show
    from nnjit.runconfig.opening import open_subject

    opened = open_subject(subject, "python")  # plans and emits as "cpu" does, without a compiler
    if stage == "summary":
        lines: list[str] = []
        opened.model.summary(print_fn=lines.append)
        text = "\n".join(lines)
    else:
        executable = opened.executable(step)
        if stage == "graph":
            text = show(executable.graph)
        elif stage == "plan":
            text = executable.listing(batch=batch_size)
        else:
            text = executable.source()
    if as_json:
        print_json({"subject": subject, "stage": stage, "step": step, "text": text})
    else:
        click.echo(text)
