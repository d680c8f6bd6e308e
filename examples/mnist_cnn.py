"""A convolutional network on MNIST, written as one would with Keras.

python examples/mnist_cnn.py --data FOLDER     # the folder of the four IDX files, plain or .gz
"""

import argparse
import math

from nnjit.data import load_source
from nnjit.layers import Conv2D, Dense, Flatten, MaxPooling2D
from nnjit.models import Sequential
from nnjit.optimizers import Adam
from nnjit.schedules import CosineDecay

BATCH = 128

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", required=True, help="folder of MNIST's IDX files")
parser.add_argument("--epochs", type=int, default=5)
options = parser.parse_args()

mnist = load_source("idx", path=options.data)
if mnist.x_test is None:
    parser.error(f"{options.data} has no test images (t10k-images-idx3-ubyte)")
x_train = mnist.x[..., None].astype("float32") / 255
x_test = mnist.x_test[..., None].astype("float32") / 255

model = Sequential(
    [
        Conv2D(32, kernel_size=(3, 3), activation="relu", input_shape=(28, 28, 1)),
        MaxPooling2D(pool_size=(2, 2)),
        Conv2D(64, kernel_size=(3, 3), activation="relu"),
        MaxPooling2D(pool_size=(2, 2)),
        Flatten(),
        Dense(128, activation="relu"),
        Dense(10, activation="softmax"),
    ]
)
# optimizer="adam" alone gives about 0.990; a rate that decays to 0 gives about 0.992.
steps = options.epochs * math.ceil(0.9 * len(x_train) / BATCH)
optimizer = Adam(CosineDecay(2e-3, steps))
model.compile(loss="sparse_categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])
model.fit(x_train, mnist.y, batch_size=BATCH, epochs=options.epochs, validation_split=0.1)
loss, accuracy = model.evaluate(x_test, mnist.y_test)
print(f"test loss {loss:.4f}, test accuracy {accuracy:.4f}")
