"""A line on the terminal while kernels are compiled; nothing where standard error is a file or a
pipe.
"""

from __future__ import annotations

import sys

WIDTH = 78


def on_terminal(done: int, total: int, name: str) -> None:
    """Say how many kernels of a load are compiled, on one line that erases itself at the end."""
    if not sys.stderr.isatty():
        return
    text = f"compiling kernels {done}/{total}: {name}"[:WIDTH].ljust(WIDTH)
    sys.stderr.write(f"\r{text}" if done < total else "\r" + " " * WIDTH + "\r")
    sys.stderr.flush()
