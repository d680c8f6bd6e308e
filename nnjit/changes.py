"""A clock of parameters: it reads otherwise after every write to any of them, so what was made of
parameters alone (packed or transformed weights) is good for as long as the reading stays.

Whoever writes to a parameter's memory says so, when it is done: `Variable.assign`, and a step that
has updates of parameters.
"""

from __future__ import annotations

import itertools

_ticks = itertools.count(1)
_now = 0


def reading() -> int:
    """What the clock says."""
    return _now


def parameters_changed() -> int:
    """A parameter of some model has been written to; the new reading, one above the last."""
    global _now
    _now = now = next(_ticks)
    return now
