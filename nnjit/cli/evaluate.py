"""nnjit evaluate: loss and metrics of a run's model on a part of its data."""

from __future__ import annotations

import click

from nnjit.cli.common import debug_option, device_option, json_option, print_json


@click.command()
@click.argument("run")
@click.option("--data", "part", default="test", metavar="PART", help="test, validation or train.")
@click.option("--best", is_flag=True, help="The model of the best epoch, not of the last one.")
@device_option
@json_option
@debug_option
def command(run: str, part: str, best: bool, device: str | None, as_json: bool) -> None:
    """Loss and metrics of the model in RUN, on the test part of its data."""
    from nnjit.runconfig.data import prepare_data
    from nnjit.runconfig.run import evaluate_part, open_run

    opened = open_run(run, best, device)
    prepared = prepare_data(opened.config)
    values, samples = evaluate_part(opened.model, opened.config, prepared, part)
    if as_json:
        print_json({"run": run, "part": part, "samples": samples, **values})
    else:
        scores = ", ".join(f"{k} {v:.4f}" for k, v in values.items())
        click.echo(f"{part} ({samples} samples): {scores}")
