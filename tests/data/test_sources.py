"""Sources: what they give, and what they say about damaged files."""

import gzip
import struct

import numpy as np
import pytest

from nnjit.data import Dataset, load_source
from nnjit.data.datasets import digits
from nnjit.errors import ArgumentError, DataError


def idx_bytes(array, kind=8):
    head = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
LABELS = np.array([0, 1, 2, 1, 0], np.uint8)


@pytest.fixture
def mnist(tmp_path):
    for part, n in (("train", 5), ("t10k", 2)):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES[:n]))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS[:n]))
    return tmp_path


def test_digits():
    x, y = digits()
    assert x.shape == (1797, 8, 8)
    assert x.dtype == y.dtype == np.uint8
    assert x.max() == 16
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert load_source("digits").full_scale == 16


def test_idx_folder_plain_and_gzipped(mnist):
    for name in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        file = mnist / name
        (mnist / f"{name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    data = load_source("idx", path=mnist)
    np.testing.assert_array_equal(data.x, IMAGES)
    np.testing.assert_array_equal(data.y, LABELS)
    np.testing.assert_array_equal(data.x_test, IMAGES[:2])
    assert data.classes == ("0", "1", "2")
    assert data.full_scale == 255


def test_idx_big_endian_floats(tmp_path):
    values = np.linspace(-1, 1, 6).reshape(2, 3).astype(">f4")
    file = tmp_path / "a"
    file.write_bytes(idx_bytes(values, kind=13))
    from nnjit.data.idx import read_idx

    out = read_idx(file)
    assert out.dtype == np.float32
    assert out.dtype.isnative
    np.testing.assert_array_equal(out, values.astype("f4"))


def _replace(name, change):
    def damage(folder):
        file = folder / name
        file.write_bytes(change(file.read_bytes()))

    return damage


TRAIN = "train-images-idx3-ubyte"
DAMAGE = [
    (lambda f: (f / TRAIN).unlink(), r"missing train-images-idx3-ubyte"),
    (lambda f: (f / "t10k-labels-idx1-ubyte").unlink(), r"missing t10k-labels-idx1-ubyte"),
    (_replace(TRAIN, lambda b: b[:-7]), r"train-images.*truncated at byte 69: .*needs 76 bytes"),
    (_replace(TRAIN, lambda b: b[:9]), r"truncated at byte 9, inside the sizes"),
    (_replace(TRAIN, lambda b: b""), r"truncated at byte 0"),
    (_replace(TRAIN, lambda b: b + b"x"), r"more bytes than shape .* from byte 76 on"),
    (_replace(TRAIN, lambda b: b"PK" + b[2:]), r"not an IDX file: magic number 504b0803 at byte 0"),
    (_replace(TRAIN, lambda b: gzip.compress(b)[:-9]), r"damaged gzip file"),
    (_replace(TRAIN, lambda b: b[:4] + b"\xff" * 12 + b[16:]), r"ask for \d+ bytes"),
    (_replace("train-labels-idx1-ubyte", lambda b: idx_bytes(LABELS[:4])), r"5 images, .*4 labels"),
    (lambda f: (f / "x-train-images-idx3-ubyte").write_bytes(b""), r"several files for train-im"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=range(len(DAMAGE)))
def test_damaged_idx_names_file_and_byte(mnist, damage, message):
    damage(mnist)
    with pytest.raises(DataError, match=message):
        load_source("idx", path=mnist)


def test_npz_keys(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:1], y_test=LABELS[:1])
    data = load_source(".npz", path=file)
    np.testing.assert_array_equal(data.x, IMAGES)
    np.testing.assert_array_equal(data.y_test, LABELS[:1])
    with pytest.raises(DataError, match="did you mean 'x_train'"):
        load_source("npz", path=file, x="xtrain")
    np.savez(file, images=IMAGES, labels=LABELS)
    assert load_source("npz", path=file, x="images", y="labels").y.tolist() == LABELS.tolist()
    with pytest.raises(DataError, match="it has images, labels"):
        load_source("npz", path=file)


def test_npz_refuses_pickles_and_damage(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, x=IMAGES, y=np.array([{}, 1, 2, 3, 4], dtype=object))
    with pytest.raises(DataError, match=r"'y' holds Python objects"):
        load_source("npz", path=file)
    np.savez(file, x=IMAGES, y=LABELS)
    whole = bytearray(file.read_bytes())
    file.write_bytes(whole[:100])
    with pytest.raises(DataError, match="not a readable"):
        load_source("npz", path=file)
    whole[180] ^= 1  # inside x: zip's own checksum finds it
    file.write_bytes(whole)
    with pytest.raises(DataError, match="at 'x'"):
        load_source("npz", path=file)
    with pytest.raises(DataError, match="no such file"):
        load_source("npz", path=tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", IMAGES)
    with pytest.raises(DataError, match=r"one array \(.npy\)"):
        load_source("npz", path=tmp_path / "c.npy")


BAD = [
    ({"x": [[1, 2], [3]]}, "x: rows of different lengths"),
    ({"x": np.array(["a"])}, "x: holds dtype <U1"),
    ({"x": np.array([object()])}, "x: holds Python objects"),
    ({"x": np.zeros((0, 3))}, "no rows"),
    ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, "arrays: x 3, y 4"),
    ({"x": 3.0}, "x: a single number"),
    ({"x": np.ones((2, 3)), "x_test": np.ones((2, 4))}, r"rows of x have shape \(3,\)"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[m for _, m in BAD])
def test_arrays_that_cannot_be_trained_on(options, message):
    with pytest.raises(DataError, match=message):
        load_source("arrays", **options)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("digit", {}, "did you mean 'digits'"),
        ("npz", {"file": "a"}, "no option 'file'"),
        ("npz", {}, "needs the option 'path'"),
        ("digits", {"path": "a"}, "no option 'path'; it takes none"),
    ],
)
def test_unknown_kinds_and_options(kind, options, message):
    with pytest.raises(ArgumentError, match=message):
        load_source(kind, **options)


def test_dataset_length():
    assert len(Dataset(np.zeros((3, 2)))) == 3
