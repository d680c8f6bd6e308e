"""Write the golden files anew: python -m tests.compiler.regenerate_golden

Do so after a change to the compiler or a kernel template that is meant, and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

from nnjit.compiler.pipeline import compile_graph, source
from tests.compiler.networks import NETWORKS

FOLDER = Path(__file__).with_name("golden")
VECTOR_BITS = "256"  # the width that the files are written for, whatever the host has


def emitted(name: str) -> str:
    """The listing of launches and the source of all kernels of one network."""
    net = NETWORKS[name]()
    plan = compile_graph(net.graph(), net.store().layout)
    table = [f"# {launch.template.name}  [{', '.join(launch.scopes)}]" for launch in plan.launches]
    return "\n".join([f"# {name}: the launches of one training step", *table, "", source(plan)])


def main() -> None:
    os.environ["NNJIT_VECTOR_BITS"] = VECTOR_BITS
    FOLDER.mkdir(exist_ok=True)
    for name in NETWORKS:
        path = FOLDER / f"{name}.py.txt"
        path.write_text(emitted(name), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
