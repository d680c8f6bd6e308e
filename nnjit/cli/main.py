"""The `nnjit` command: its verbs, loaded when asked for, and what becomes of errors.

Exit codes: 0 done, 1 failed, 2 a wrong argument, file or configuration, 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import os
import traceback

import click

from nnjit import __version__
from nnjit.cli.common import debug_option
from nnjit.errors import ConfigError, NnjitError, nearest

VERBS = {
    "train": "Train a model as a configuration file says.",
    "finetune": "Train a trained model on, with some layers frozen or a new head.",
    "evaluate": "Loss and metrics of a trained model on a part of its data.",
    "predict": "Outputs of a trained model for the samples in a file.",
    "inspect": "Show a model: summary, graph, memory plan or emitted source.",
    "profile": "Time each launch of a training step against this machine's limits.",
    "doctor": "Report versions, CPU, cache and threads, and test the compiler.",
}


class Failure(click.ClickException):
    """An error for people: one line a problem on stderr, exit code 2."""

    exit_code = 2


class Bug(Failure):
    """An error that nnjit did not expect: exit code 1."""

    exit_code = 1


def failure(error: BaseException) -> Failure:
    """What the command line says about an exception."""
    if isinstance(error, ConfigError):
        return Failure(str(error))  # a line for each wrong value
    if isinstance(error, NnjitError):
        return Failure("; ".join(str(error).splitlines()))
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return Failure(f"{name}{(error.strerror or str(error)).lower()}")
    kind = type(error).__name__
    return Bug(f"nnjit failed: {kind}: {error} (a bug; --debug shows where)")


class Verbs(click.Group):
    """The group of verbs: a verb's module is imported when the verb runs, not for `--help`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return importlib.import_module(f"nnjit.cli.{cmd_name}").command

    def resolve_command(self, ctx: click.Context, args: list[str]):
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"unknown command {args[0]!r}{nearest(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise
            if ctx.meta.get("nnjit.debug"):
                click.echo(traceback.format_exc().rstrip(), err=True)
            raise failure(error) from error


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"nnjit {__version__}")
        ctx.exit()


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='Completion for your shell: eval "$(_NNJIT_COMPLETE=bash_source nnjit)" '
    "(or zsh_source, fish_source). NO_COLOR=1 turns colours off.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Print the version and leave.",
)  # fmt: skip
@debug_option
@click.pass_context
def cli(ctx: click.Context) -> None:
    """nnjit compiles whole training steps to readable Numba kernels."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """The entry point of the `nnjit` script."""
    cli(prog_name="nnjit")
