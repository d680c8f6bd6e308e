"""A convolutional network on MNIST, written as one would with Keras.

python examples/mnist_cnn.py --data FOLDER     # the folder of the four IDX files, plain or .gz
"""

import argparse

from nnjit.data import load_source
from nnjit.layers import Conv2D, Dense, Flatten, MaxPooling2D
from nnjit.models import Sequential

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
model.compile(loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
model.fit(x_train, mnist.y, batch_size=128, epochs=options.epochs, validation_split=0.1)
loss, accuracy = model.evaluate(x_test, mnist.y_test)
print(f"test loss {loss:.4f}, test accuracy {accuracy:.4f}")
