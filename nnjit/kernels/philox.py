"""Random numbers from counters: the number of an element follows from (seed, stream, step, flat
index) alone.

So the order of the work, the number of threads and what else is drawn do not matter. The generator
is Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). Philox4x32-10 under
the seed turns (step, stream) into a key and an offset; LLVM hoists that out of loops. Philox2x32-10
under that key turns the counter (index mod 2**32, index // 2**32 + offset) into the 64 bits of one
element: uniforms use the low or all of them, a normal number uses both halves.

The same text makes the kernels' code and NumPy's arrays: words are 64-bit integers that hold 32
bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnjit.kernels import math_f4, math_f8
from nnjit.kernels.function import Function
from nnjit.kernels.scalar import Value, call, convert, select

MASK = 0xFFFFFFFF
TAU_PER_WORD = 2.0 * np.pi / 2.0**32  # one turn is 2**32


def philox2x32(c0: Any, c1: Any, key: Any) -> tuple[Any, Any]:
    """Ten rounds of Philox2x32 on 32-bit words held in 64-bit integers."""
    for i in range(10):
        p = c0 * 0xD256D193
        c0, c1 = (p >> 32) ^ ((key + i * 0x9E3779B9) & MASK) ^ c1, p & MASK
    return c0, c1


def philox4x32(c: tuple[Any, ...], k0: Any, k1: Any) -> tuple[Any, Any, Any, Any]:
    """Ten rounds of Philox4x32 on 32-bit words held in 64-bit integers."""
    c0, c1, c2, c3 = c
    for i in range(10):
        p, q = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        a = (q >> 32) ^ ((k0 + i * 0x9E3779B9) & MASK) ^ c1
        b = (p >> 32) ^ ((k1 + i * 0xBB67AE85) & MASK) ^ c3
        c0, c1, c2, c3 = a, q & MASK, b, p & MASK
    return c0, c1, c2, c3


def words(seed: Any, stream: Any, step: Any, index: Any) -> tuple[Any, Any]:
    """The two 32-bit words of an element; all arguments are unsigned 64-bit integers."""
    counter = step & MASK, step >> 32, stream & MASK, stream >> 32
    key, offset, _, _ = philox4x32(counter, seed & MASK, seed >> 32)
    return philox2x32(index & MASK, ((index >> 32) + offset) & MASK, key)


def element_words(*place: Value) -> tuple[Value, Value]:
    """`words` of integers as kernels have them, signed."""
    return words(*(convert(v, "u8") for v in place))


def bits(seed: Value, stream: Value, step: Value, index: Value) -> Value:
    """The 64 random bits of an element."""
    low, high = element_words(seed, stream, step, index)
    return low | (high << 32)


def uniform_f4(seed: Value, stream: Value, step: Value, index: Value) -> Value:
    """Uniform in [0, 1): a multiple of 2**-24."""
    low, _ = element_words(seed, stream, step, index)
    return convert(convert(low >> 8, "i4"), "f4") * 2.0**-24


def uniform_f8(seed: Value, stream: Value, step: Value, index: Value) -> Value:
    """Uniform in [0, 1): a multiple of 2**-53."""
    return convert(convert(bits(seed, stream, step, index) >> 11, "i8"), "f8") * 2.0**-53


def normal_of(low: Value, high: Value, formulas: Any, code: str) -> Value:
    """Box and Muller: sqrt(-2 log(u)) cos(2 pi v) with u = (low + 1) / 2**32 in the
    dtype, v = high / 2**32.

    The angle is cut into a quarter of a turn and a rest, exactly, while it is an integer.
    """
    u = convert(convert(low + 1, "i8"), "f8") * 2.0**-32
    radius = call("sqrt", -2.0 * formulas.log(convert(u, code)))
    quarter = (high + 2**29) >> 30
    rest = convert(high - (quarter << 30), "i8")
    angle = convert(rest, "f8") * TAU_PER_WORD
    z = convert(angle * angle, code)
    cosine = formulas.cos_near(z)
    sine = formulas.sin_near(convert(angle, code), z)
    wave = select((quarter & 1) == 1, sine, cosine)
    # quarters 0..4: cos, -sin, -cos, sin, cos
    return radius * select(((quarter + 1) & 2) == 2, -wave, wave)


def normal_f4(seed: Value, stream: Value, step: Value, index: Value) -> Value:
    """Standard normal, at most 6.7 from 0; within 4 ulp of `philox_normal`."""
    return normal_of(*element_words(seed, stream, step, index), math_f4, "f4")


def normal_f8(seed: Value, stream: Value, step: Value, index: Value) -> Value:
    """Standard normal of 64 random bits, at most 6.7 from 0; within 4 ulp of `philox_normal`."""
    return normal_of(*element_words(seed, stream, step, index), math_f8, "f8")


def numpy_bits(seed: Any, stream: Any, step: Any, index: Any) -> Any:
    """The 64 random bits of elements: NumPy's meaning of `bits`, for scalars or an array of
    indices.
    """
    seed, stream, step = (np.uint64(int(v) % 2**64) for v in (seed, stream, step))
    low, high = words(seed, stream, step, np.asarray(index, np.uint64))
    return low | (high << 32)


def numpy_uniform(words64: Any, dtype: Any) -> Any:
    if dtype == np.float32:
        return ((words64 & MASK) >> 8).astype(np.float32) * np.float32(2.0**-24)
    return (words64 >> 11).astype(np.float64) * 2.0**-53


def numpy_normal(words64: Any, dtype: Any) -> Any:
    low, high = words64 & MASK, words64 >> 32
    quarter = (high + 2**29) >> 30
    angle = (high.astype(np.int64) - (quarter << 30).astype(np.int64)) * TAU_PER_WORD
    wave = np.where(quarter & 1, np.sin(angle), np.cos(angle))
    u = ((low + 1) * 2.0**-32).astype(dtype)
    radius = np.sqrt(-2.0 * np.log(u.astype(np.float64)))
    return (radius * np.where((quarter + 1) & 2, -wave, wave)).astype(dtype)


ARGS = ("i8", "i8", "i8", "i8")


def element(name: str, formula: Any, draw: Any, dtype: Any, result: str) -> Function:
    def meaning(seed: Any, stream: Any, step: Any, index: Any) -> Any:
        return draw(numpy_bits(seed, stream, step, index), dtype)

    return Function(name, formula, meaning, ARGS, result)


philox_bits_u8 = Function("philox_bits_u8", bits, numpy_bits, ARGS, "u8")
philox_uniform_f4 = element("philox_uniform_f4", uniform_f4, numpy_uniform, np.float32, "f4")
philox_uniform_f8 = element("philox_uniform_f8", uniform_f8, numpy_uniform, np.float64, "f8")
philox_normal_f4 = element("philox_normal_f4", normal_f4, numpy_normal, np.float32, "f4")
philox_normal_f8 = element("philox_normal_f8", normal_f8, numpy_normal, np.float64, "f8")


def philox_bits(seed: int, stream: int, step: int, shape: Any, first: int = 0) -> np.ndarray:
    """uint64 array of random bits: element i of the flat array is philox_bits_u8(seed, stream,
    step, first + i).

    seed, stream and step are integers, taken modulo 2**64.
    """
    count = int(np.prod(shape, dtype=np.int64))
    index = np.arange(first, first + count, dtype=np.uint64)
    return numpy_bits(seed, stream, step, index).reshape(shape)


def philox_uniform(
    seed: int, stream: int, step: int, shape: Any, dtype: Any, first: int = 0
) -> np.ndarray:
    """Uniform numbers in [0, 1), float32 or float64; the same bits as in kernels."""
    return numpy_uniform(philox_bits(seed, stream, step, shape, first), checked(dtype))


def philox_normal(
    seed: int, stream: int, step: int, shape: Any, dtype: Any, first: int = 0
) -> np.ndarray:
    """Standard normal numbers, float32 or float64; kernels differ by a few ulp."""
    return numpy_normal(philox_bits(seed, stream, step, shape, first), checked(dtype))


def checked(dtype: Any) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"random numbers: dtype must be float32 or float64, got {dtype}")
    return dtype
