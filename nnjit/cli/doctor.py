"""nnjit doctor: what nnjit finds on this machine, and whether its compiler works here."""

from __future__ import annotations

from typing import Any

import click

from nnjit.cli.common import debug_option, json_option, print_json


@click.command()
@json_option
@debug_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Report versions, CPU, threads and cache; compile and run a small function; measure limits.

    Exit code 1 if the function cannot be compiled or differs from NumPy.
    """
    from nnjit.profiling.environment import facts
    from nnjit.profiling.selftest import self_test

    found = facts()
    test = self_test()
    limits = _limits() if test["ok"] else None
    if as_json:
        print_json({**found, "self_test": test, "machine": limits})
    else:
        _show(found, test, limits)
    if not test["ok"]:
        ctx.exit(1)


def _limits() -> dict[str, Any]:
    from dataclasses import asdict

    from nnjit.profiling.machine import machine

    return asdict(machine())


def _show(found: dict[str, Any], test: dict[str, Any], limits: dict[str, Any] | None) -> None:
    from nnjit.profiling.report import bytes_text, pairs

    cache = found["cache"]
    state = "" if cache["writable"] else "; cannot be written: set NNJIT_CACHE"
    lines: list[tuple[str, Any]] = [
        *found["packages"].items(),
        ("python", f"{found['python']}, {found['platform']}"),
        ("cpu", f"{found['cpu']}, {found['vector_bits']}-bit vectors"),
        ("features", " ".join(found["features"]) or "none that nnjit uses"),
        ("bfloat16", f"products by {found['bfloat16']}"),
        ("float32", f"large products by {found['float32']}"),
        ("threads", f"{found['threads']} on {found['cores']} cores"),
        ("device", found["device"]),
        (
            "loader",
            found["loader"] + (f" ({found['loader_note']})" if found["loader_note"] else ""),
        ),
        (
            "cache",
            f"{cache['path']}: {cache['kernels']} kernels, {bytes_text(cache['bytes'])}{state}",
        ),
        ("self-test", test["text"]),
    ]
    if limits:
        lines.append((
            "limits",
            f"{limits['gflops']:.0f} GFLOP/s ({limits['gflops_core']:.0f} per core), "
            f"{limits['bandwidth']:.0f} GB/s of memory",
        ))  # fmt: skip
    click.echo(pairs(lines))
