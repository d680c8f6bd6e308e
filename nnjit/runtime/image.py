"""The machine code of a whole step in one piece, which this process can take in without llvmlite.

Relocatable objects are laid one behind the other. What depends on where that lies in memory are
words of eight bytes: those that hold an address inside (the base is added to them), and those that
hold the address of a function of this process. Only what x86-64's large code model writes is
understood; for other objects there is no image, and MCJIT links them (`objects.link`).
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nnjit.errors import CompileError
from nnjit.runtime import objects

_HEADER = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, -, offset, size, link, info, align, -
_SYMBOL = struct.Struct("<IBBHQQ")  # name, -, -, section, value, size
_RELOCATION = struct.Struct("<QQq")  # where, symbol and type, addend
PROGBITS, SYMTAB, RELA = 1, 2, 4
WRITE, ALLOCATED = 1, 2
ABSOLUTE = 1  # R_X86_64_64
MACHINE = 62  # x86-64
ALIGNMENT = 64


class NoImage(Exception):
    """Objects have something that an image cannot hold."""


@dataclass
class Image:
    """entries: offset of each symbol that was asked for. inner: offsets of words to which the base
    is added; outer: by symbol, offsets of words to which its address is added.
    """

    code: bytearray = field(default_factory=bytearray)
    entries: dict[str, int] = field(default_factory=dict)
    inner: list[int] = field(default_factory=list)
    outer: dict[str, list[int]] = field(default_factory=dict)

    def add(self, code: bytes, entry: str) -> None:
        """Lay an ELF64 object behind the others; `entry` is its function. Raises NoImage."""
        if code[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", code, 18)[0] != MACHINE:
            raise NoImage("no x86-64 object")
        table_at, size, count = objects.elf_sections(code)
        heads = [_HEADER.unpack_from(code, table_at + size * i) for i in range(count)]
        names = heads[struct.unpack_from("<H", code, 0x3E)[0]][4]
        places = {}
        for i, (name, kind, flags, _, at, length, _, _, align, _) in enumerate(heads):
            if flags & ALLOCATED and length and _text(code, names + name) != ".eh_frame":
                if kind != PROGBITS or flags & WRITE:
                    raise NoImage(f"a section {_text(code, names + name)}")
                step = max(align, ALIGNMENT)
                self.code += bytes(-len(self.code) % step)
                places[i] = len(self.code)
                self.code += code[at : at + length]
        for head in heads:
            if head[1] == RELA and head[7] in places:
                self._relocate(code, heads, head, places)
        self.entries[entry] = _find(code, heads, entry, places)

    def _relocate(self, code: bytes, heads: list, head: tuple, places: dict[int, int]) -> None:
        """Note the words of one section that hold addresses; their addends are put there."""
        symbols, strings = heads[head[6]][4], heads[heads[head[6]][6]][4]
        for at in range(head[4], head[4] + head[5], _RELOCATION.size):
            where, info, addend = _RELOCATION.unpack_from(code, at)
            if info & 0xFFFFFFFF != ABSOLUTE:
                raise NoImage(f"a relocation of type {info & 0xFFFFFFFF}")
            where += places[head[7]]
            symbol = _SYMBOL.unpack_from(code, symbols + _SYMBOL.size * (info >> 32))
            name, _, _, section, value, _ = symbol
            if section in places:
                addend += places[section] + value
                self.inner.append(where)
            elif section == 0 and name:
                self.outer.setdefault(_text(code, strings + name), []).append(where)
            else:
                raise NoImage(f"a symbol of section {section}")
            struct.pack_into("<q", self.code, where, addend)


def _text(code: bytes, at: int) -> str:
    return code[at : code.index(b"\0", at)].decode()


def _find(code: bytes, heads: list, entry: str, places: dict[int, int]) -> int:
    """Where the function `entry` lies in the image."""
    for head in heads:
        if head[1] == SYMTAB:
            for at in range(head[4], head[4] + head[5], _SYMBOL.size):
                name, _, _, section, value, _ = _SYMBOL.unpack_from(code, at)
                if section in places and _text(code, heads[head[6]][4] + name) == entry:
                    return places[section] + value
    raise NoImage(f"no symbol {entry}")


def encode(image: Image, key: str, calls: Sequence[str]) -> bytes:
    """The image as a file's bytes. calls: the symbols whose addresses `take_in` gives, in order."""
    outer = [at for places in image.outer.values() for at in places]
    words = np.array([*image.inner, *outer], "<i8")
    meta = {
        "key": key,
        "calls": [image.entries[name] for name in calls],
        "inner": len(image.inner),
        "outer": [[name, len(places)] for name, places in image.outer.items()],
    }
    return objects.encode(objects.Entry(meta, words.tobytes() + bytes(image.code)))


def take_in(blob: bytes, key: str) -> tuple[object, list[int]]:
    """Put an encoded image into memory: what must outlive every call, and addresses.

    Raises `objects.BadEntry` where the bytes are damaged or another key's, OSError where the system
    forbids it, CompileError for a function that this process does not have.
    """
    entry = objects.decode(blob, key)
    meta = entry.meta
    count = meta["inner"] + sum(n for _, n in meta["outer"])
    words = np.frombuffer(entry.code, "<i8", count)
    code = memoryview(entry.code)[8 * count :]
    home = mmap.mmap(-1, max(len(code), 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    home[: len(code)] = code
    memory = np.frombuffer(home, np.uint8)
    base = memory.ctypes.data
    _add(memory, words[: meta["inner"]], base)
    at = meta["inner"]
    for name, n in meta["outer"]:
        _add(memory, words[at : at + n], _address(name))
        at += n
    libc = ctypes.CDLL(None, use_errno=True)
    protection = mmap.PROT_READ | mmap.PROT_EXEC
    if libc.mprotect(ctypes.c_void_p(base), ctypes.c_size_t(len(home)), protection):
        raise OSError(ctypes.get_errno(), "no memory can be made executable")
    return memory, [base + offset for offset in meta["calls"]]


def _add(memory: np.ndarray, places: np.ndarray, value: int) -> None:
    """Add a number to the words at these places, wherever they begin."""
    bytes_of = places[:, None] + np.arange(8)
    words = memory[bytes_of].view("<u8") + np.uint64(value)
    memory[bytes_of] = words.view(np.uint8)


def _address(name: str) -> int:
    found = objects.address_of(name)
    if found is None:
        raise CompileError(f"a compiled step calls {name}, which no library of this process has")
    return found


def combined(entries: Sequence[objects.Entry]) -> Image:
    """One image of several objects; raises NoImage."""
    image = Image()
    for entry in entries:
        image.add(entry.code, entry.meta["entry"])
    return image
