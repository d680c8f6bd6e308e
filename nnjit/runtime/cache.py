"""Kernel sources, their keys, and the folder where sources and objects are kept.

In: a `KernelSource` (text). Out: its key, which stands for everything that decides the machine
code, and the files `<name>-<key12>.py` and `<name>-<key12>.obj`. Nothing is compiled or linked
here.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnjit import config
from nnjit.atomic import write_atomic
from nnjit.errors import CacheError, CompileError
from nnjit.kernels import target
from nnjit.runtime import objects

_ROOT = Path(target.__file__).parent.parent

#: modules that decide the machine code although they are not in the text
_IMPORTS = re.compile(r"nnjit\.(kernels|runtime)((?:\.\w+)+)")
_FROM = re.compile(r"from nnjit\.(kernels|runtime) import \(?([\w, \n]+)")


@dataclass(frozen=True)
class KernelSource:
    """One kernel: its function's name, its signature ('void(int64, *float32)'), its file's text."""

    name: str
    signature: str
    text: str

    @functools.cached_property
    def key(self) -> str:
        """32 hex digits for text, signature, helpers, versions, flags and CPU."""
        helpers = tuple((name, file_hash(name)) for name in sorted(helper_modules(self.text)))
        return _key(self.name, self.signature, self.text, helpers, json.dumps(environment()))

    @property
    def entry(self) -> str:
        """The symbol in the object. Numba's own names are not unique between processes."""
        return f"k_{self.key}"

    @property
    def path(self) -> Path:
        """The readable source file in the cache folder."""
        return config.cache_dir() / f"{self.name}-{self.key[:12]}.py"

    @property
    def object_path(self) -> Path:
        """The object file beside it."""
        return config.cache_dir() / f"{self.name}-{self.key[:12]}.obj"


@functools.lru_cache(maxsize=1024)  # a step has a launch with a source of its own for each use
def _key(name: str, signature: str, text: str, helpers: tuple, environment: str) -> str:
    return digest(json.dumps([name, signature, text, helpers, environment]))


@functools.cache
def driver_source() -> KernelSource:
    """The driver itself: compiled and kept like a kernel."""
    text = Path(__file__).with_name("interpreter.py").read_text(encoding="utf-8")
    return KernelSource("driver", "int64(" + ", ".join(["int64"] * 7) + ")", text)


def digest(text: str) -> str:
    """32 hex digits of sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def environment() -> dict[str, str]:
    """Whatever decides the machine code besides the text: versions, flags, CPU, vector width."""
    return {**_machine(), "vector_bits": str(target.vector_bits())}


@functools.cache
def _machine() -> dict[str, str]:
    import llvmlite
    import llvmlite.binding as llvm

    folder = Path(__file__).parent
    compiler = [(folder / f"{x}.py").read_text(encoding="utf-8") for x in ("worker", "frontend")]
    return {
        "format": str(objects.FORMAT),
        "compiler": digest("".join(compiler)),
        "numba": _version("numba"),
        "llvmlite": llvmlite.__version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "cpu": llvm.get_host_cpu_name(),
        "features": llvm.get_host_cpu_features().flatten(),
    }


#: lines of /proc/cpuinfo that say which machine code a processor runs
_PROCESSOR = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags", "CPU implementer",
    "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",
)  # fmt: skip


@functools.cache
def host() -> dict[str, str]:
    """Versions and processor, as `environment`, but without llvmlite, whose import takes longer
    than all else of a warm start that is nnjit's own; where the system does not say which
    processor it is, `environment` itself.
    """
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first = file.read(1 << 14).partition("\n\n")[0]
    except OSError:
        first = ""
    lines = [line.partition(":") for line in first.splitlines()]
    known = {name.strip(): value.strip() for name, _, value in lines}
    found = {name: known[name] for name in _PROCESSOR if name in known}
    if not {"flags", "Features"} & found.keys():
        return environment()
    versions = {"numba": _version("numba"), "llvmlite": _version("llvmlite")}
    amx = str(target.amx_allowed())
    return {**found, **versions, "python": sys.version, "format": str(objects.FORMAT), "amx": amx}


def _version(package: str) -> str:
    """A package's version, not importing it; importlib.metadata takes 10 ms of a warm start."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise CompileError(f"{package} is not installed: pip install 'numba>=0.68,<0.69'")
    text = Path(spec.origin).with_name("_version.py").read_text(encoding="utf-8")
    found = re.search(r"version\W+(\d[\w.]*)", text)
    return found[1] if found else digest(text)


@functools.lru_cache(maxsize=1024)
def helper_modules(text: str) -> frozenset[str]:
    """Dotted names such as 'kernels.tile' that `text` imports, directly or through one another."""
    found: set[str] = set()
    todo = _imported(text)
    while todo:
        name = todo.pop()
        if name not in found and (path := _module_path(name)):
            found.add(name)
            todo |= _imported_by(path)
    return frozenset(found)


def _imported(text: str) -> set[str]:
    names = set()
    for package, dotted in _IMPORTS.findall(text):
        parts = [package, *dotted[1:].split(".")]
        names |= {".".join(parts[:end]) for end in range(2, len(parts) + 1)}  # module or attribute
    for package, listed in _FROM.findall(text):
        names |= {f"{package}.{name}" for name in re.findall(r"\w+", listed)}
    return names


def _module_path(name: str) -> Path | None:
    """The file of nnjit.<name>; None where that is no module."""
    path = _ROOT.joinpath(*name.split(".")).with_suffix(".py")
    return path if path.is_file() else None


@functools.cache
def _imported_by(path: Path) -> set[str]:
    return _imported(path.read_text(encoding="utf-8"))


@functools.cache
def file_hash(name: str) -> str:
    """Hash of the text of nnjit.<name>."""
    return digest((_ROOT / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))


def read_entry(source: KernelSource) -> objects.Entry:
    """The cached object; FileNotFoundError where there is none, `objects.BadEntry` if unusable."""
    return objects.decode(source.object_path.read_bytes(), source.key)


def write_source(source: KernelSource) -> Path:
    """Put the readable source into the cache folder; CacheError where that cannot be written."""
    path = source.path
    writable(lambda: write_atomic(path, source.text.encode(), durable=False))
    return path


def writable(write: Callable[[], object]) -> None:
    """Call `write`; an OSError becomes a CacheError that names the folder and the setting."""
    try:
        write()
    except OSError as error:
        why = error.strerror or error
        raise CacheError(
            f"cannot write compiled kernels to {config.cache_dir()}: {why}; "
            "set NNJIT_CACHE (or nnjit.set_cache_dir) to a folder that can be written"
        ) from None


def objects_by_name() -> dict[str, list[Path]]:
    """All object files of the cache folder, by the kernel's name."""
    found: dict[str, list[Path]] = {}
    for path in config.cache_dir().glob("*.obj"):
        found.setdefault(path.stem.rpartition("-")[0], []).append(path)
    return found


def miss_reason(source: KernelSource, known: Mapping[str, Sequence[Path]] | None = None) -> str:
    """Why `source` has no object: new, changed (its text), or version: what differs.

    known: `objects_by_name()`, for whoever asks for many.
    """
    reason = "new"
    for path in (objects_by_name() if known is None else known).get(source.name, ()):
        try:
            meta = objects.decode(path.read_bytes()).meta
        except (OSError, objects.BadEntry):
            continue
        if meta.get("text") != digest(source.text):
            reason = "changed"
            continue
        then, now = meta["environment"], environment()
        differing = [name for name in now if then.get(name) != now[name]]
        return "version: " + (", ".join(differing) or "nnjit.kernels")
    return reason
