"""Images: the machine code of several kernels in one file, taken in without llvmlite."""

import ctypes
import struct

import numpy as np
import pytest
from small_kernels import make_source, scale

from nnjit.runtime import cache, cpu, image, objects

CALL = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3, ctypes.c_void_p)
#: a table of constants, and a call of a function of the C library
BODY = ["for i in range(lo, hi):", "    y[i] = sin(y[i]) + (2.5 if y[i] > 1 else -0.75)"]


def waves():
    source = make_source("waves", [], [("y", "float64")], BODY)
    text = source.text.replace("def waves", "from math import sin\n\n\ndef waves")
    return cache.KernelSource("waves", source.signature, text)


def called(address):
    y = np.linspace(0, 3, 7)
    CALL(address)(0, 7, 0, y.ctypes.data)
    return y


@pytest.fixture(scope="module")
def made(session_cache):
    """Sources and their image's file, written as a step does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNJIT_CACHE", str(session_cache))
        sources = [waves(), scale(4.0), waves()]
        cpu.load(sources)
        path = session_cache / "step.image"
        cpu.write_image(path, "key", sources)
        return sources, path


def test_an_image_computes_what_the_kernels_do(made):
    sources, path = made
    addresses, report = cpu.load_image(path, "key")
    assert report.loader == "image"
    assert report.hits == 2
    assert addresses[0] == addresses[2] != addresses[1]
    apart = cpu.load(sources).addresses
    assert apart[sources[0].key] != addresses[0]
    x = np.linspace(0, 3, 7)
    np.testing.assert_allclose(called(addresses[0]), np.sin(x) + np.where(x > 1, 2.5, -0.75))
    assert called(addresses[0]).tobytes() == called(apart[sources[0].key]).tobytes()


def test_an_image_needs_no_llvmlite(made, python):
    _, path = made
    code = (
        "import sys; from pathlib import Path; from nnjit.runtime import cpu\n"
        f"addresses, _ = cpu.load_image(Path({str(path)!r}), 'key')\n"
        "print(len(addresses), 'llvmlite' in sys.modules, 'numba' in sys.modules)"
    )
    assert python(code).split() == ["3", "False", "False"]


def test_an_image_that_cannot_be_used_is_reported(made, tmp_path, caplog):
    _, path = made
    whole = path.read_bytes()
    assert cpu.load_image(tmp_path / "none.image", "key") is None
    assert caplog.text == ""
    for data, words in ((b"", "empty"), (whole[:-1], "checksum"), (whole, "another kernel's")):
        broken = tmp_path / "broken.image"
        broken.write_bytes(data)
        assert cpu.load_image(broken, "key" if data is not whole else "other") is None
        assert words in caplog.text


def test_objects_that_no_image_can_hold(made, tmp_path):
    sources, _ = made
    code = cache.read_entry(sources[0]).code
    arm = bytearray(code)
    struct.pack_into("<H", arm, 18, 183)
    with pytest.raises(image.NoImage, match="no x86-64 object"):
        image.Image().add(bytes(arm), sources[0].entry)
    with pytest.raises(image.NoImage, match="no symbol other"):
        image.Image().add(code, "other")
    table_at, size, count = objects.elf_sections(code)
    odd = bytearray(code)
    for i in range(count):  # the first relocation becomes one relative to the program counter
        head = struct.unpack_from("<IIQQQQIIQQ", code, table_at + size * i)
        if head[1] == image.RELA and head[5]:
            (info,) = struct.unpack_from("<Q", code, head[4] + 8)
            struct.pack_into("<Q", odd, head[4] + 8, info & ~0xFFFFFFFF | 2)
    with pytest.raises(image.NoImage, match="relocation of type 2"):
        image.Image().add(bytes(odd), sources[0].entry)
    cpu.write_image(tmp_path / "none" / "x.image", "key", [make_source("absent", [], [], [])])
    assert not (tmp_path / "none").exists()
