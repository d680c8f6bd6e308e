"""What the verbs share: options, JSON output, and the version. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click


def _remember_debug(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        ctx.meta["nnjit.debug"] = True  # shared by a verb's context and the group's


def debug_option(command: Callable) -> Callable:
    """--debug, before or after the verb."""
    return click.option(
        "--debug", is_flag=True, is_eager=True, expose_value=False, callback=_remember_debug,
        help="Show the traceback of an error.",
    )(command)  # fmt: skip


def json_option(command: Callable) -> Callable:
    """--json: one JSON object on stdout instead of text."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def device_option(command: Callable) -> Callable:
    """--device NAME; None leaves it to the configuration."""
    return click.option(
        "--device", metavar="NAME", help="cpu, python or interpret; instead of the configuration's."
    )(command)


def print_json(value: Any) -> None:
    """One JSON object on stdout. NumPy numbers become plain ones; NaN and infinity become null."""
    click.echo(json.dumps(plain(value), indent=2))


def plain(value: Any) -> Any:
    """The value with JSON's types only."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
