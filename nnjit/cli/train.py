"""nnjit train: a configuration file to a trained model in a run folder."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnjit.cli.common import debug_option, device_option, json_option, print_json
from nnjit.errors import ConfigError

if TYPE_CHECKING:
    from nnjit.runconfig.run import Result

run_options = (
    click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE",
        help="Change the configuration: --set train.epochs=5. The value is TOML. Repeatable.",
    ),
    device_option,
    click.option("--seed", type=int, help="Instead of the configuration's seed."),
    click.option("--run-dir", metavar="FOLDER", help="Instead of runs/<name>-<time>."),
    click.option("--resume", is_flag=True, help="Continue the run in --run-dir."),
    json_option,
    debug_option,
)  # fmt: skip


def with_run_options(command: Any) -> Any:
    for option in reversed(run_options):
        command = option(command)
    return command


@click.command()
@click.argument("config")
@with_run_options
def command(config: str, **options: Any) -> None:
    """Train as CONFIG (a TOML file) says; the results go to a run folder.

    A run folder in place of CONFIG, with --resume, continues that run. A run that was killed
    continues exactly where its newest checkpoint is.
    """
    from nnjit.runconfig.folder import RunFolder, is_run

    if is_run(config):
        if not options["resume"]:
            raise ConfigError(f"{config}: is a run folder; --resume continues it")
        options["run_dir"] = options["run_dir"] or config
        config = str(RunFolder(Path(config)).config)
    start_run(config, [], **options)


def start_run(
    file: str,
    changes: list,
    *,
    sets: tuple[str, ...],
    device: str | None,
    seed: int | None,
    run_dir: str | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Read, check, train, report. changes: (option, path, value) besides those of the options."""
    if resume and not run_dir:
        raise ConfigError("--resume: needs --run-dir FOLDER, the folder of the run to continue")
    from nnjit.runconfig.folder import is_run, new_folder
    from nnjit.runconfig.reading import read_config

    named = [("--device", ("device",), device), ("--seed", ("seed",), seed)]
    changes = changes + [c for c in named if c[2] is not None]
    config, _source = read_config(file, sets, changes)
    folder = new_folder(config, run_dir, resume)

    from nnjit.runconfig.run import train_run

    try:
        # with --json, stdout holds the report alone
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            result = train_run(config, folder)
    except KeyboardInterrupt:
        if is_run(folder.path):
            click.echo(f"continue with: nnjit train {folder.path} --resume", err=True)
        raise
    report(result, as_json)


def report(result: Result, as_json: bool) -> None:
    """Where the run is, and how good the model is on samples that it has not seen."""
    if as_json:
        print_json({**asdict(result), "folder": str(result.folder.path)})
        return
    scores = ", ".join(f"{k} {v:.4f}" for k, v in result.held_out.items())
    if result.part:
        click.echo(f"held-out ({result.part}, {result.samples} samples): {scores}")
    click.echo(f"run folder: {result.folder.path}")
