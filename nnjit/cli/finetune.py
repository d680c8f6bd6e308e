"""nnjit finetune: a trained model and new data to a run of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nnjit.cli.train import start_run, with_run_options


@click.command()
@click.argument("model")
@click.argument("config")
@click.option(
    "--freeze",
    multiple=True,
    metavar="PATTERN",
    help="Layers with such names (conv*) stay as they are and get no backward kernels. Repeatable.",
)
@click.option("--head", type=int, metavar="CLASSES", help="A new last Dense layer of this size.")
@click.option("--lr", type=float, help="Learning rate, instead of the configuration's.")
@with_run_options
def command(
    model: str,
    config: str,
    freeze: tuple[str, ...],
    head: int | None,
    lr: float | None,
    **options: Any,
) -> None:
    """Train MODEL (a run folder or a model file) on, with the data and settings of CONFIG.

    CONFIG has no [model]: it is MODEL, and may be changed by --freeze and --head. Data is scaled as
    CONFIG says.
    """
    base = str(Path(model).resolve())
    changes: list[tuple[str, tuple[str, ...], Any]] = [("MODEL", ("model", "base"), base)]
    if freeze:
        changes.append(("--freeze", ("model", "freeze"), list(freeze)))
    if head is not None:
        changes.append(("--head", ("model", "head"), head))
    if lr is not None:
        changes.append(("--lr", ("train", "optimizer", "learning_rate"), lr))
    start_run(config, changes, **options)
