"""The walls between nnjit's parts: who may import whom, who may use a package, how long a file is.

Imports inside functions count too. `nnjit/__init__.py` is exempt: its public names resolve lazily.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "nnjit"
FILES = sorted(PACKAGE.rglob("*.py"))

# Lower lines first: a file imports from its own line of this table and from those above it.
LINES = (
    ("errors", "changes", "config", "spec", "atomic", "bfloat16", "container", "registry"),
    ("graph", "printing"),
    ("autodiff", "ops", "precision"),
    ("kernels",),
    ("compiler",),
    ("runtime",),
    (
        "activations", "initializers", "regularizers", "constraints", "layers", "losses", "metrics",
        "optimizers", "schedules",
    ),
    ("data", "profiling"),
    (
        "architecture", "callbacks", "compiled", "functional", "models", "saving", "session",
        "step", "summary", "training", "verbs",
    ),
    ("runconfig",),
    ("cli",),
    ("__main__",),
)  # fmt: skip
RANK = {name: i for i, line in enumerate(LINES) for name in line}
SYMBOLIC = LINES[RANK["layers"]]  # these see Nodes, never kernels or devices
WALLS = {
    "numba": ("kernels", "runtime"),
    "llvmlite": ("kernels", "runtime"),
    "click": ("cli",),
    "pydantic": ("runconfig",),
}
MAX_LINES = 350
LONGER = {"graph.py": 400}  # the core's nouns stay on one page

# the NumPy meaning of an op that draws random numbers is the kernel's own, in plain NumPy
ALLOWED = {("nnjit/ops/random.py", "nnjit.kernels.philox")}

HEAVY = ("numba", "llvmlite", "rich", "pydantic")


def part(module: str) -> str:
    """'ops' for 'nnjit.ops.window'; '' for anything outside of nnjit and for nnjit itself."""
    pieces = module.split(".")
    return pieces[1] if pieces[0] == "nnjit" and len(pieces) > 1 else ""


def owner(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, full module name) of every import of a file, those inside functions included."""
    package = [*path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, a.name) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            inner = module.count(".") < 2 and (ROOT / module.replace(".", "/")).is_dir()
            names = [f"{module}.{a.name}" for a in node.names] if inner else [module]
            found += [(node.lineno, n) for n in names]
    return found


def test_every_part_has_a_line():
    parts = {owner(p) for p in FILES} - {"__init__"}
    assert parts <= set(RANK), f"give {sorted(parts - set(RANK))} a line in LINES"


def test_a_lower_line_never_imports_a_higher_one():
    wrong = []
    for path in FILES:
        if path == PACKAGE / "__init__.py":
            continue
        for line, module in imports(path):
            target = part(module)
            if target.startswith("__") or (not target and module != "nnjit"):
                continue
            if (str(path.relative_to(ROOT)), module) in ALLOWED:
                continue
            if module == "nnjit" or RANK.get(target, len(LINES)) > RANK[owner(path)]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_layers_and_optimizers_never_see_kernels_or_devices():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in FILES
        if owner(path) in SYMBOLIC
        for line, module in imports(path)
        if part(module) in ("kernels", "compiler", "runtime")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", WALLS)
def test_a_package_stays_behind_its_wall(package):
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in FILES
        if owner(path) not in WALLS[package]
        for line, module in imports(path)
        if module.split(".")[0] == package
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_too_long():
    long = {str(p.relative_to(PACKAGE)): len(p.read_text().splitlines()) for p in FILES}
    wrong = {name: n for name, n in long.items() if n > LONGER.get(name, MAX_LINES)}
    assert not wrong, f"split by idea: {wrong}"


@pytest.mark.parametrize(
    "code",
    [
        "import nnjit",
        "import runpy, sys; sys.argv[1:] = ['--help']\n"
        "try: runpy.run_module('nnjit', run_name='__main__')\n"
        "except SystemExit as e: assert not e.code, e.code",
    ],
    ids=["import nnjit", "nnjit --help"],
)
def test_start_up_imports_nothing_heavy(code):
    """What a user pays before asking for anything: no compiler, no progress bars, no validation."""
    report = f"\nimport sys; print('loaded:', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "loaded:"
