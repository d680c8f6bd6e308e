"""Batches: arrays in, contiguous batches of the step's dtypes out, in an order that (seed, epoch)
decides.

Large batches are gathered and cast by a loader thread into one of two buffers that take turns while
the step runs on the other. `waiting` counts the seconds that the caller stood still for data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from nnjit.data.order import permutation
from nnjit.errors import ArgumentError

if TYPE_CHECKING:
    from concurrent.futures import Future

THREAD_BYTES = 1 << 18  # below this a gather takes less time than waking a thread

Batch = dict[str, np.ndarray]


class Batches:
    """Rows of `arrays`, `batch_size` at a time, cast to `dtypes`; the last batch holds what is
    left.

    arrays: by input name, equally long. A batch is valid until the next but one is asked for.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        dtypes: Mapping[str, str],
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
    ):
        if not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ArgumentError(f"batch_size={batch_size!r}: expected a whole number from 1")
        self.arrays, self.batch_size = dict(arrays), int(batch_size)
        self.dtypes = {k: np.dtype(dtypes[k]) for k in self.arrays}
        self.shuffle, self.seed = shuffle, seed
        self.rows = len(next(iter(self.arrays.values())))
        self.waiting = 0.0
        self._buffers: list[Batch] = [{}, {}]

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-self.rows // self.batch_size)

    @property
    def batch_bytes(self) -> int:
        """Bytes of a full batch."""
        rows = min(self.batch_size, self.rows)
        return sum(rows * self._row_size(k) for k in self.arrays)

    def _row_size(self, name: str) -> int:
        shape = self.arrays[name].shape[1:]
        return int(np.prod(shape, dtype=np.int64)) * self.dtypes[name].itemsize

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[int, int, Batch]]:
        """(step, rows, batch) of an epoch, from step `start` on."""
        order = permutation(self.rows, self.seed, epoch) if self.shuffle else None
        if self.batch_bytes < THREAD_BYTES or self._in_place():
            for step in range(start, self.steps):
                began = perf_counter()
                batch = self._fill(order, step)
                self.waiting += perf_counter() - began
                yield step, self._rows(step), batch
            return
        from concurrent.futures import ThreadPoolExecutor  # 5 ms that a single step does not need

        with ThreadPoolExecutor(1, "nnjit-loader") as loader:
            pending: Future[Batch] | None = None
            for step in range(start, self.steps):
                began = perf_counter()
                batch = (pending or loader.submit(self._fill, order, step)).result()
                self.waiting += perf_counter() - began
                pending = (
                    loader.submit(self._fill, order, step + 1) if step + 1 < self.steps else None
                )
                yield step, self._rows(step), batch

    def _rows(self, step: int) -> int:
        return min(self.batch_size, self.rows - step * self.batch_size)

    def _in_place(self) -> bool:
        """True when batches are slices of the arrays, so there is nothing to load."""
        return not self.shuffle and all(self._fits(k) for k in self.arrays)

    def _fits(self, name: str) -> bool:
        array = self.arrays[name]
        return array.dtype == self.dtypes[name] and array.flags.c_contiguous

    def _fill(self, order: np.ndarray | None, step: int) -> Batch:
        low = step * self.batch_size
        rows = self._rows(step)
        buffers, out = self._buffers[step % 2], {}
        for name, array in self.arrays.items():
            fits = self._fits(name)
            if order is None and fits:
                out[name] = array[low : low + rows]
                continue
            if name not in buffers:
                shape = (min(self.batch_size, self.rows), *array.shape[1:])
                buffers[name] = np.empty(shape, self.dtypes[name])
            target = buffers[name][:rows]
            if order is None:
                target[...] = array[low : low + rows]
            elif fits:
                np.take(array, order[low : low + rows], 0, out=target, mode="clip")
            else:
                target[...] = array[order[low : low + rows]]
            out[name] = target
        return out
