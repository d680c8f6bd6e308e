"""What the emitted kernels may count on: the host's vector width, and whether this process
compiles.

A compile worker sets `jitting` before it imports anything else of `nnjit.kernels`; there the
helpers are Numba functions. Everywhere else they are plain Python, and numba is never imported.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

from nnjit.errors import ConfigError

jitting = False

#: dtype code in kernel files -> (dtype, bytes); NumPy has all of them but bfloat16
DTYPES = {
    "f4": ("float32", 4), "f8": ("float64", 8), "i4": ("int32", 4), "i8": ("int64", 8),
    "u1": ("uint8", 1), "u2": ("uint16", 2), "u4": ("uint32", 4), "u8": ("uint64", 8),
    "b2": ("bfloat16", 2),
}  # fmt: skip
#: dtype -> dtype code; a bool is stored as one byte, 0 or 1
CODES = {name: code for code, (name, _) in DTYPES.items()} | {"bool": "u1"}


def itemsize(code: str) -> int:
    """Bytes of one element of a dtype code such as 'f4'."""
    return DTYPES[code][1]


def storage(code: str) -> str:
    """The NumPy name of what a pointer of this dtype code points at: bfloat16 are bit patterns."""
    return "uint16" if code == "b2" else DTYPES[code][0]


@functools.lru_cache(maxsize=1)
def host_vector_bits() -> int:
    """Width of the host's vector registers in bits: 512, 256 or 128."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 512
    return 256 if features.get("avx2") and features.get("fma") else 128


@functools.lru_cache(maxsize=1)
def host_multiplies_pairs() -> bool:
    """Does the host have AVX512_BF16, whose vdpbf16ps multiplies pairs of bfloat16?"""
    import llvmlite.binding as llvm

    return bool(llvm.get_host_cpu_features().get("avx512bf16"))


@functools.lru_cache(maxsize=1)
def host_multiplies_blocks() -> bool:
    """Does the host have AMX with bfloat16, and does the system let this process use it?"""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    has = features.get("amx-tile") and features.get("amx-bf16") and features.get("avx512bf16")
    return bool(has) and amx_allowed()


@functools.lru_cache(maxsize=1)
def amx_allowed() -> bool:
    """Ask Linux for the registers of AMX, which a process does not get otherwise: arch_prctl
    (ARCH_REQ_XCOMP_PERM, XTILEDATA), for all threads and for children that are forked.
    """
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return False
    return ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0


def multiplies_pairs() -> bool:
    """Are kernels written for vdpbf16ps? Only with 512-bit vectors; NNJIT_BF16=emulate says no."""
    return bf16_asked() != "emulate" and vector_bits() == 512 and host_multiplies_pairs()


def multiplies_blocks() -> bool:
    """Are kernels written for the registers of AMX? Only with 512-bit vectors; NNJIT_BF16=pairs
    and emulate say no.
    """
    return bf16_asked() == "auto" and vector_bits() == 512 and host_multiplies_blocks()


def splits_floats() -> bool:
    """Are large products of float32 written for AMX, too (`kernels.thirds`)? If NNJIT_FLOAT32=amx
    asks for it: while neighbours are at work, shared CPUs may run AMX at a quarter of its speed.

    Raises ConfigError where there is no AMX.
    """
    if float32_asked() != "amx":
        return False
    if vector_bits() != 512 or not host_multiplies_blocks():
        raise ConfigError("NNJIT_FLOAT32=amx: this CPU, or this system, has no AMX with bfloat16")
    return True


def float32_asked() -> str:
    """What large products of float32 are done by: fma (multiply-adds), or amx."""
    asked = os.environ.get("NNJIT_FLOAT32", "") or "fma"
    if asked not in ("fma", "amx"):
        raise ConfigError(f"NNJIT_FLOAT32={asked!r}: expected fma or amx")
    return asked


def multiplies_by() -> str:
    """What products of bfloat16 are done by, for people."""
    if multiplies_blocks():
        return "AMX"
    return "vdpbf16ps" if multiplies_pairs() else "float32 multiply-adds (emulated)"


def bf16_asked() -> str:
    """How products of bfloat16 are done: auto, pairs (vdpbf16ps at most) or emulate."""
    asked = os.environ.get("NNJIT_BF16", "") or "auto"
    if asked not in ("auto", "pairs", "emulate"):
        raise ConfigError(f"NNJIT_BF16={asked!r}: expected auto, pairs or emulate")
    return asked


def vector_bits() -> int:
    """The vector width that kernels are written for; NNJIT_VECTOR_BITS (512, 256, 128) overrides
    the host's, so that one machine can show another's kernels.
    """
    asked = os.environ.get("NNJIT_VECTOR_BITS")
    if not asked:
        return host_vector_bits()
    if asked not in ("128", "256", "512"):
        raise ConfigError(f"NNJIT_VECTOR_BITS={asked!r}: expected 128, 256 or 512")
    return int(asked)


def lanes(code: str) -> int:
    """Elements of a dtype code in one vector register."""
    return vector_bits() // (8 * itemsize(code))


def registers() -> int:
    """Vector registers of the target: 32 with AVX-512, else 16."""
    return 32 if vector_bits() == 512 else 16
