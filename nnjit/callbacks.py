"""All callbacks in one place: `from nnjit.callbacks import EarlyStopping`."""

from nnjit.training.callbacks import (
    Callback,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from nnjit.training.checkpoint import BackupAndRestore
from nnjit.training.history import History
from nnjit.training.loggers import CSVLogger, JSONLogger, ModelCheckpoint

__all__ = [
    "BackupAndRestore", "CSVLogger", "Callback", "EarlyStopping", "History", "JSONLogger",
    "LambdaCallback", "LearningRateScheduler", "ModelCheckpoint", "ReduceLROnPlateau",
    "TerminateOnNaN",
]  # fmt: skip
