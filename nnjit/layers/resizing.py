"""Layers that repeat, pad or cut the spatial axes; Keras' names and defaults."""

from __future__ import annotations

from typing import Any, ClassVar

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError, nearest
from nnjit.layers.base import REGISTRY, Layer
from nnjit.layers.convolution_base import Numbers, check_known, check_rank, numbers, pairs
from nnjit.layers.core import channels_last, positive
from nnjit.ops.resize import INTERPOLATIONS
from nnjit.spec import shape_text

Widths = Numbers | Any


@REGISTRY.named()
class UpSampling1D(Layer):
    """Each step `size` times: (batch, steps * size, channels). The number of steps may be open."""

    def __init__(self, size: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.size = positive(self, "size", size)

    def call(self, x):
        check_rank(self, x.shape, 1)
        return ops.upsample(x, self.size)


@REGISTRY.named()
class UpSampling2D(Layer):
    """Height and width times `size`: (batch, height * size[0], width * size[1], channels).

    interpolation: 'nearest' (height and width may be open) or 'bilinear' (half-pixel centres, the
    border repeated outwards).
    """

    def __init__(
        self,
        size: Numbers = (2, 2),
        data_format: str | None = None,
        interpolation: str = "nearest",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.size = numbers(self, "size", size, 2)
        channels_last(self, data_format)
        if not isinstance(interpolation, str) or interpolation.lower() not in INTERPOLATIONS:
            raise ArgumentError(
                f"{self.name}: interpolation={interpolation!r}"
                f"{nearest(str(interpolation), INTERPOLATIONS)}"
            )
        self.interpolation = interpolation.lower()

    def call(self, x):
        check_rank(self, x.shape, 2)
        if self.interpolation == "bilinear":
            check_known(self, x, (1, 2))
        return ops.upsample(x, self.size, self.interpolation)


class _ZeroPadding(Layer):
    """Zeros around the spatial axes."""

    spatial: ClassVar[int]

    def __init__(self, padding: Widths = 1, data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.padding = pairs(self, "padding", padding, self.spatial)
        channels_last(self, data_format)

    def call(self, x):
        check_rank(self, x.shape, self.spatial)
        check_known(self, x, [a for a, w in enumerate(self.padding, 1) if any(w)])
        return ops.pad(x, [(0, 0), *self.padding, (0, 0)])


@REGISTRY.named()
class ZeroPadding1D(_ZeroPadding):
    """Zeros before and behind the steps. padding: a number for both ends, or (before, behind)."""

    spatial = 1


@REGISTRY.named()
class ZeroPadding2D(_ZeroPadding):
    """Zeros around images. padding: a number, (vertical, horizontal), or ((top, bottom), (left,
    right)).
    """

    spatial = 2


class _Cropping(Layer):
    """Cuts the ends of the spatial axes off."""

    spatial: ClassVar[int]

    cropping: tuple[tuple[int, int], ...]

    def call(self, x):
        check_rank(self, x.shape, self.spatial)
        check_known(self, x, [a for a, w in enumerate(self.cropping, 1) if any(w)])
        cut = [slice(None)]
        for n, (low, high) in zip(x.shape[1:-1], self.cropping, strict=True):
            if (low or high) and low + high >= n:
                raise ShapeError(
                    f"{self.path}: cropping={self.cropping} leaves nothing of {shape_text(x.shape)}"
                )
            cut.append(slice(low, n - high) if low or high else slice(None))
        return x[tuple(cut)]


@REGISTRY.named()
class Cropping1D(_Cropping):
    """Without the first and last steps. cropping: a number for both ends, or (before, behind)."""

    spatial = 1

    def __init__(self, cropping: Widths = (1, 1), **kwargs: Any):
        super().__init__(**kwargs)
        self.cropping = pairs(self, "cropping", cropping, 1)


@REGISTRY.named()
class Cropping2D(_Cropping):
    """Without the border of images. cropping: a number, (vertical, horizontal), or ((top, bottom),
    (left, right)).
    """

    spatial = 2

    def __init__(
        self, cropping: Widths = ((0, 0), (0, 0)), data_format: str | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.cropping = pairs(self, "cropping", cropping, 2)
        channels_last(self, data_format)
