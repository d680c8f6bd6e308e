"""The exceptions of nnjit. Each says what was given, what was expected, and where.

Every class also derives from the built-in that a caller would expect (ValueError, TypeError, …), so
plain `except ValueError` works. The command line prints the message alone and exits with 2.
"""

from __future__ import annotations

from collections.abc import Iterable


class NnjitError(Exception):
    """Base class of all errors that nnjit raises on purpose."""


class ShapeError(NnjitError, ValueError):
    """Shapes that do not fit together; the message names the op or layer and both shapes."""


class DTypeError(NnjitError, TypeError):
    """A dtype that an op, a layer or a data source does not take."""


class ArgumentError(NnjitError, ValueError):
    """An option with a value that it cannot have; the message names the option."""


class ConfigError(NnjitError, ValueError):
    """A configuration file or command-line setting that is wrong; names file, line and key where
    known.
    """


class DataError(NnjitError, ValueError):
    """Data that cannot be trained on: labels out of range, empty, ragged, object arrays, unreadable
    files.
    """


class ModelFileError(NnjitError, ValueError):
    """A model file or checkpoint that is missing, truncated, corrupt or of another version."""


class CompileError(NnjitError, RuntimeError):
    """A kernel that could not be compiled; names the kernel and its source file."""


class CacheError(NnjitError, OSError):
    """A cache or run folder that cannot be written or read."""


class NumericError(NnjitError, ArithmeticError):
    """NaN or infinity in the loss; names the first launch that made it where NNJIT_CHECK=1."""


class GraphError(NnjitError, RuntimeError):
    """A graph that breaks a rule of the verifier: a bug in nnjit, or a leaf used outside of its
    model.
    """


def nearest(name: str, options: Iterable[str]) -> str:
    """The end of a message: the closest option as a question, or the list of all options."""
    import difflib  # only errors need it

    options = sorted(map(str, options))
    close = difflib.get_close_matches(str(name), options, 1, 0.55)
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of: {', '.join(options)}"


def lookup(kind: str, name: str, table: dict, error: type[NnjitError] = ArgumentError):
    """table[name], or an error that names the nearest key."""
    try:
        return table[name]
    except KeyError:
        raise error(f"unknown {kind} {name!r}{nearest(name, table)}") from None
