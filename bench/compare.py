"""What slowed down between two results of bench.steps, beyond noise.

Usage: python -m bench.compare OLD.json NEW.json [--noise 0.08]; exits with 1 if anything did.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def slower(old: dict, new: dict, noise: float) -> list[str]:
    """A line a row whose share of the measured peak fell by more than a fraction `noise`."""
    rows = [r for r in old["rows"] if "nnjit" in r["peers"]]
    before = {(r["workload"], r["threads"]): r["peers"]["nnjit"] for r in rows}
    out = []
    for r in new["rows"]:
        was = before.get((r["workload"], r["threads"]))
        if was is None or "nnjit" not in r["peers"]:
            continue
        ratio = r["peers"]["nnjit"]["share_of_peak"] / was["share_of_peak"]
        if ratio < 1 - noise:
            ms = r["peers"]["nnjit"]["ms"]
            out.append(
                f"{r['workload']} {r['threads']} thread(s): {was['ms']:.2f} -> {ms:.2f} ms, "
                f"{ratio:.2f} of the speed relative to the machine's peak"
            )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--noise", type=float, default=0.08)
    args = parser.parse_args()
    lines = slower(json.loads(args.old.read_text()), json.loads(args.new.read_text()), args.noise)
    print("\n".join(lines) or "nothing slowed down beyond noise")
    raise SystemExit(1 if lines else 0)


if __name__ == "__main__":
    main()
