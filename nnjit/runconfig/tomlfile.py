"""TOML text to values and the line of every key; and `--set a.b=c`. No meaning is checked here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from nnjit.errors import ConfigError

Path_ = tuple[str | int, ...]  # ("model", "layers", 0, "filters")
Lines = dict[Path_, int]

BARE = re.compile(r"[A-Za-z0-9_-]+")
STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:\\.|[^"\\\n])*"|' r"'[^'\n]*'", re.DOTALL
)
WORD = re.compile(r"""[A-Za-z_/~.][^\s"'\[\]{}=]*""")  # a value of --set that needs no quotes


def read_toml(path: Path) -> tuple[dict[str, Any], Lines]:
    """(values, line of every key and element); ConfigError names file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    except OSError as e:
        raise ConfigError(f"{path}: {(e.strerror or str(e)).lower()}") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        at = re.search(r" \(at line (\d+), column \d+\)", str(e))
        line = at.group(1) if at else len(text.splitlines())
        raise ConfigError(
            f"{path}:{line}: not TOML: {str(e).replace(at.group(0), '') if at else e}"
        ) from None
    return values, positions(text)


def positions(text: str) -> Lines:
    """The line (from 1) of every table, key and array element of valid TOML text."""
    return _Scanner(text).document()


class _Scanner:
    """Walks TOML text that tomllib has accepted, so it need not notice errors."""

    def __init__(self, text: str):
        self.text, self.at, self.lines = text, 0, Lines()
        self.tables: dict[Path_, int] = {}  # [[name]] seen so far -> its newest index

    def mark(self, path: Path_) -> None:
        self.lines.setdefault(path, self.text.count("\n", 0, self.at) + 1)

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def space(self, also: str = "") -> None:
        """Skip blanks, newlines, comments, and the characters of `also`."""
        while self.peek() and (self.peek() in " \t\r\n" + also or self.peek() == "#"):
            if self.peek() == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                self.at += 1

    def document(self) -> Lines:
        table: Path_ = ()
        self.space()
        while self.peek():
            if self.peek() == "[":
                table = self.header()
            else:
                self.pair(table)
            self.space()
        return self.lines

    def header(self) -> Path_:
        many = self.text.startswith("[[", self.at)
        start = self.at
        self.at += 2 if many else 1
        keys = self.key()
        self.space()
        self.at += 2 if many else 1
        path: Path_ = ()
        for i, key in enumerate(keys):
            path = (*path, key)
            last = i == len(keys) - 1
            if many and last:
                self.tables[path] = self.tables.get(path, -1) + 1
            if path in self.tables:
                path = (*path, self.tables[path])
        end, self.at = self.at, start
        for size in range(1, len(path) + 1):
            self.mark(path[:size])
        self.at = end
        return path

    def key(self) -> list[str]:
        """A dotted key; quoted parts are unquoted."""
        parts = []
        while True:
            self.space()
            found = STRING.match(self.text, self.at) or BARE.match(self.text, self.at)
            assert found is not None
            part = found.group()
            parts.append(tomllib.loads(f"k = {part}")["k"] if part[0] in "\"'" else part)
            self.at = found.end()
            self.space()
            if self.peek() != ".":
                return parts
            self.at += 1

    def pair(self, table: Path_) -> None:
        start = self.at
        keys = self.key()
        end, self.at = self.at, start
        for size in range(1, len(keys) + 1):
            self.mark((*table, *keys[:size]))
        self.at = end + 1  # the "="
        self.value((*table, *keys))

    def value(self, path: Path_) -> None:
        self.space()
        opening = self.peek()
        if opening in "[{":
            self.at += 1
            closing, index = "]" if opening == "[" else "}", 0
            self.space(",")
            while self.peek() != closing:
                if opening == "[":
                    self.mark((*path, index))
                    self.value((*path, index))
                    index += 1
                else:
                    self.pair(path)
                self.space(",")
            self.at += 1
        elif found := STRING.match(self.text, self.at):
            self.at = found.end()
        else:
            while self.peek() and self.peek() not in ",]}#\n":
                self.at += 1


def parse_set(text: str) -> tuple[Path_, Any]:
    """('a.b.0=5') -> (("a", "b", 0), 5). The value is TOML; a bare word is a string."""
    name, equals, raw = text.partition("=")
    keys = [k.strip() for k in name.split(".")]
    if not equals or not all(BARE.fullmatch(k) for k in keys):
        raise ConfigError(f"--set {text}: expected KEY=VALUE, as in --set train.epochs=5")
    raw = raw.strip()
    try:
        value = tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        if not WORD.fullmatch(raw):
            raise ConfigError(f"--set {text}: {raw!r} is not a TOML value; quote text") from None
        value = raw
    return tuple(int(k) if k.isdigit() else k for k in keys), value


def assign(values: dict[str, Any], path: Path_, value: Any, where: str) -> None:
    """values[path] = value, in place. Tables on the way are made; list indices must exist.

    A text on the way stands for a table with that name: optimizer = "adam" is {name = "adam"}.
    """
    here: Any = values
    for i, key in enumerate(path):
        last = i == len(path) - 1
        text = ".".join(map(str, path[:i]))
        if isinstance(here, list):
            if not isinstance(key, int) or not 0 <= key < len(here):
                raise ConfigError(f"{where}: {text} has entries 0 to {len(here) - 1}, not {key!r}")
        elif not isinstance(here, dict):
            raise ConfigError(f"{where}: {text} is {here!r}, which has no keys")
        elif not last:
            here.setdefault(str(key), {})
        key = key if isinstance(here, list) else str(key)
        if last:
            here[key] = value
        else:
            if isinstance(here[key], str):
                here[key] = {"name": here[key]}
            here = here[key]
