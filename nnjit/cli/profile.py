"""nnjit profile: where the time of a step goes."""

from __future__ import annotations

import click

from nnjit.cli.common import debug_option, json_option, print_json

STEPS = ("train", "evaluate", "predict")


@click.command()
@click.argument("subject", metavar="RUN_OR_CONFIG")
@click.option("--step", type=click.Choice(STEPS), default="train", show_default=True)
@click.option("--steps", type=click.IntRange(1), default=50, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), help="Instead of the configuration's.")
@click.option("--trace", "target", metavar="FILE", help="Write a trace for chrome://tracing.")
@json_option
@debug_option
def command(
    subject: str, step: str, steps: int, batch_size: int | None, target: str | None, as_json: bool
) -> None:
    """Time each launch of a step on the training data, against what this machine can do.

    The model in a run folder is not changed.
    """
    from nnjit.profiling.profile import profile_step, text, trace
    from nnjit.runconfig.files import write_file
    from nnjit.runconfig.opening import open_subject

    opened = open_subject(subject, "cpu")
    size = batch_size or opened.config.train.batch_size
    found = profile_step(*opened.step_on_data(step, size), step, steps)
    if target:
        write_file(target, trace(found).encode())
    if as_json:
        print_json(found.get_config())
    else:
        click.echo(text(found))
