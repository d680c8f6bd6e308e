"""History: what each epoch's metrics were, and how long it took."""

from __future__ import annotations

from typing import Any

from nnjit.training.callbacks import Callback


class History(Callback):
    """`history["loss"][i]` is the loss of `epoch[i]`; fit returns one.

    seconds: of each epoch, validation included. waiting: seconds of it spent waiting for data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.seconds: list[float] = []
        self.waiting: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)

    def add_times(self, seconds: float, waiting: float) -> None:
        """Called by the loop when an epoch is over."""
        self.seconds.append(seconds)
        self.waiting.append(waiting)

    def get_state(self) -> dict[str, Any]:
        return {"history": self.history, "epoch": self.epoch, "seconds": self.seconds,
                "waiting": self.waiting}  # fmt: skip

    def set_state(self, state: dict[str, Any]) -> None:
        self.history, self.epoch = state["history"], state["epoch"]
        self.seconds, self.waiting = state["seconds"], state["waiting"]
