"""A small run that test_checkpoint starts in its own process, kills and starts again.

python trainee.py DEVICE FOLDER OUT DIE_AT: trains with checkpoints in FOLDER; kills itself with
SIGKILL when DIE_AT steps are done by this process (0: never), else writes the weights, optimizer
state and history to OUT.
"""

import json
import os
import signal
import sys

import numpy as np

from nnjit.callbacks import (
    BackupAndRestore,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ReduceLROnPlateau,
)
from nnjit.layers import BatchNormalization, Dense, Dropout, Input
from nnjit.models import Sequential

EPOCHS, BATCH, ROWS = 4, 8, 43  # 6 steps an epoch, the last one of 3 rows


def main(device, folder, out, die_at):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    model = Sequential([
        Input((5,)), Dense(6, "relu"), BatchNormalization(), Dropout(0.3), Dense(3, "softmax"),
    ])  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"], device=device)
    done = []

    def count(batch, logs):
        done.append(batch)
        if len(done) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    callbacks = [
        LambdaCallback(on_train_batch_end=count),
        LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        ReduceLROnPlateau("loss", patience=1, min_delta=10.0),
        EarlyStopping("val_loss", patience=2, restore_best_weights=True),
        CSVLogger(out + ".csv"),
        BackupAndRestore(folder, save_freq=2, delete_checkpoint=False),
    ]
    history = model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, validation_data=(x[:9], y[:9]),
                        callbacks=callbacks, verbose=0)  # fmt: skip
    arrays = {f"v{i}": v.numpy() for i, v in enumerate(model.step_variables())}
    np.savez(out + ".npz", **arrays)
    with open(out + ".json", "w") as file:
        json.dump([history.history, history.epoch], file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
