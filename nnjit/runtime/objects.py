"""The object file of a kernel: its format, its symbols, and linking it into this process with
llvmlite alone.

Never imports numba. What is not exactly as written (checksum, key) is refused with `BadEntry`:
MCJIT would crash on it.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import platform
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from nnjit.errors import CompileError

FORMAT = 1
MAGIC = b"NNJITOBJ"
_HEAD = struct.Struct("<8sI32sI")  # magic, format, sha256 of what follows, length of the meta data

#: Numba's helpers on error paths that LLVM did not remove although they cannot be reached; bound to
#: abort()
DEAD = (
    "numba_gil_",
    "numba_unpickle",
    "numba_do_raise",
    "numba_runtime_build_excinfo_struct",
    "Py",
    "_Py",
)


class BadEntry(ValueError):
    """A cache entry that is truncated, damaged or somebody else's."""


class Unproven(Exception):
    """This Numba has no private name that turning a kernel into an object needs."""


@dataclass(frozen=True)
class Entry:
    """One compiled kernel. meta: key, entry (its symbol), undefined (symbols to bind), name, text,
    environment."""

    meta: dict
    code: bytes = field(repr=False)


def encode(entry: Entry) -> bytes:
    """The file's bytes."""
    meta = json.dumps(entry.meta, sort_keys=True).encode()
    body = meta + entry.code
    return _HEAD.pack(MAGIC, FORMAT, hashlib.sha256(body).digest(), len(meta)) + body


def decode(blob: bytes, key: str | None = None) -> Entry:
    """The entry in `blob`; raises BadEntry where it is damaged or (with `key`) another kernel's."""
    if len(blob) < _HEAD.size or not blob.startswith(MAGIC):
        raise BadEntry("not an object of nnjit" if blob else "empty")
    _, version, checksum, length = _HEAD.unpack_from(blob)
    body = blob[_HEAD.size :]
    if version != FORMAT:
        raise BadEntry(f"format {version}, expected {FORMAT}")
    if hashlib.sha256(body).digest() != checksum:
        raise BadEntry("wrong checksum")
    entry = Entry(json.loads(body[:length]), body[length:])
    if key is not None and entry.meta["key"] != key:
        raise BadEntry("another kernel's object")
    return entry


def unsupported() -> str | None:
    """Why the object path is not used here, or None. It is proven on 64-bit Linux (ELF) only."""
    machine = platform.machine().lower()
    if sys.platform != "linux" or machine not in ("x86_64", "aarch64"):
        return f"objects are not proven on {sys.platform} {machine}"
    if not sys.executable:
        return "no Python executable to start compile workers with"
    return None


def undefined_symbols(code: bytes) -> list[str]:
    """Names that an ELF64 object refers to and does not define (ELF specification, chapter 4).

    From the symbol table, not from the LLVM text: code generation adds calls such as expf.
    """
    if code[:6] != b"\x7fELF\x02\x01":
        raise ValueError("expected a little-endian ELF64 object")
    table_at, entry_size, count = elf_sections(code)
    heads = [struct.unpack_from("<IIQQQQII", code, table_at + entry_size * i) for i in range(count)]
    names = set()
    for _, kind, _, _, offset, size, link, _ in heads:
        if kind != 2:  # SHT_SYMTAB
            continue
        strings = heads[link][4]
        for at in range(offset, offset + size, 24):
            name, _, _, section, _, _ = struct.unpack_from("<IBBHQQ", code, at)
            if section == 0 and name:
                end = code.index(b"\0", strings + name)
                names.add(code[strings + name : end].decode())
    return sorted(names)


def elf_sections(code: bytes) -> tuple[int, int, int]:
    """Where the section headers are, the size of one, and how many."""
    (table_at,) = struct.unpack_from("<Q", code, 0x28)
    entry_size, count = struct.unpack_from("<HH", code, 0x3A)
    return table_at, entry_size, count


def link(entries: Sequence[Entry]) -> tuple[object, list[int]]:
    """Put objects into memory: the engine, which must outlive every call, and each entry's
    address."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for entry in entries:
        for name in entry.meta["undefined"]:
            _bind(llvm, name, entry.meta["name"])
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        opt=0, jit=True, codemodel="jitdefault", reloc="static"
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    for entry in entries:
        engine.add_object_file(llvm.ObjectFileRef.from_data(entry.code))
    engine.finalize_object()
    addresses = [engine.get_function_address(entry.meta["entry"]) for entry in entries]
    for entry, address in zip(entries, addresses, strict=True):
        if not address:
            raise CompileError(f"kernel {entry.meta['name']}: no symbol {entry.meta['entry']}")
    return engine, addresses


def _bind(llvm, name: str, kernel: str) -> None:
    """Give MCJIT an address for `name`. One that it cannot find makes it bind ALL of an object's to
    0, silently.

    A symbol that is bound already stays: Numba may live in this process and owns its helpers.
    """
    if llvm.address_of_symbol(name):
        return
    found = address_of(name)
    if found is None:
        raise CompileError(f"kernel {kernel} calls {name}, which no library of this process has")
    llvm.add_symbol(name, found)


def address_of(name: str) -> int | None:
    """A function or object of this process; abort() for what only dead code refers to."""
    for library in _libraries():
        if (found := getattr(library, name, None)) is not None:
            return ctypes.cast(found, ctypes.c_void_p).value
    if name.startswith(DEAD):
        return ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value
    return None


@functools.cache
def _libraries() -> tuple[ctypes.CDLL, ...]:
    """This process (libc, Python), the maths library, the compiler's support library where there is
    one."""
    libraries = [ctypes.CDLL(None)]
    for name in ("libm.so.6", "libgcc_s.so.1"):
        try:
            libraries.append(ctypes.CDLL(name))
        except OSError:
            continue
    return tuple(libraries)
