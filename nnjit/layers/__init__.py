"""Layers: definitions that build Nodes; Keras' names, defaults, weight order and shapes."""

from nnjit.layers.activation import ELU, LeakyReLU, PReLU, ReLU, Softmax
from nnjit.layers.base import Input, Layer, Variable, get, name_layers, trace
from nnjit.layers.convolution import Conv2D, DepthwiseConv2D
from nnjit.layers.core import (
    Activation,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Permute,
    RepeatVector,
    Rescaling,
    Reshape,
)
from nnjit.layers.merging import (
    Add,
    Average,
    Concatenate,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
)
from nnjit.layers.normalization import BatchNormalization
from nnjit.layers.pooling import (
    AveragePooling2D,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    MaxPooling2D,
)

MaxPool2D, AvgPool2D = MaxPooling2D, AveragePooling2D
GlobalAvgPool2D, GlobalMaxPool2D = GlobalAveragePooling2D, GlobalMaxPooling2D

__all__ = [
    "ELU", "Activation", "Add", "Average", "AveragePooling2D", "AvgPool2D",
    "BatchNormalization", "Concatenate", "Conv2D", "Dense", "DepthwiseConv2D", "Dropout",
    "Embedding", "Flatten", "GlobalAveragePooling2D", "GlobalAvgPool2D", "GlobalMaxPool2D",
    "GlobalMaxPooling2D", "Input", "Layer", "LeakyReLU", "MaxPool2D", "MaxPooling2D", "Maximum",
    "Minimum", "Multiply", "PReLU", "Permute", "ReLU", "RepeatVector", "Rescaling", "Reshape",
    "Softmax", "Subtract", "Variable", "get", "name_layers", "trace",
]  # fmt: skip
