"""nnjit predict: samples in a file to outputs in a file."""

from __future__ import annotations

from pathlib import Path

import click

from nnjit.cli.common import debug_option, device_option, json_option, print_json


@click.command()
@click.argument("run")
@click.option("--input", "source", required=True, metavar="FILE", help=".npy, or .npz with x.")
@click.option("--output", "target", required=True, metavar="FILE", help=".npy, .npz or .csv.")
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True)
@click.option("--best", is_flag=True, help="The model of the best epoch, not of the last one.")
@device_option
@json_option
@debug_option
def command(
    run: str,
    source: str,
    target: str,
    batch_size: int,
    best: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Outputs of the model in RUN for the raw samples in a file.

    The samples are scaled and shaped as the run's training data was. The output file is replaced
    as a whole or not at all.
    """
    from nnjit.runconfig.files import OUTPUTS, read_samples, suffix_of, write_predictions
    from nnjit.runconfig.run import open_run

    suffix_of(Path(target), OUTPUTS, "--output")
    opened = open_run(run, best, device)
    preparation = opened.folder.preparation()
    x = preparation.apply(read_samples(source), source)
    values = opened.model.predict(x, batch_size=batch_size, verbose=0)
    write_predictions(target, values, preparation.classes)
    if as_json:
        print_json({"run": run, "samples": len(x), "shape": values.shape, "output": target})
    else:
        click.echo(f"{len(x)} predictions of shape {tuple(values.shape[1:])} in {target}")
