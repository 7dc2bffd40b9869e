"""The reader of MATLAB files: equal to scipy's on sound files, and one message on damaged ones."""

import io
import pathlib
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import cells, market_labels, pa100k_labels, peta_labels
from upar_files import beside, small_upar

from tfds_builders import matlab
from tfds_builders.market1501_attribute.builder import read_labels as read_market
from tfds_builders.pa100k.builder import read_labels as read_pa100k
from tfds_builders.peta.builder import read_labels as read_peta
from tfds_builders.upar.builder import Upar
from tfds_builders.upar.builder import read_annotations as read_upar
from tfds_builders.upar.schema import FILE_NAMES

PEOPLE = {"train": ("0002", "0007"), "test": ("0001", "0003")}
READERS = {
    "market": (read_market, market_labels(PEOPLE)),
    "peta": (read_peta, peta_labels(44)),
    "pa100k": (read_pa100k, pa100k_labels({"train": 3, "val": 1, "test": 2})),
}


def assert_equal(ours, scipys):
    if isinstance(ours, dict):
        assert set(ours) == set(scipys.dtype.names)
        for name, value in ours.items():
            assert_equal(value, scipys[0, 0][name])
    elif isinstance(ours, list):
        members = scipys.ravel(order="F")
        assert len(ours) == len(members)
        for value, member in zip(ours, members, strict=True):
            assert_equal(value, member)
    elif isinstance(ours, str):
        assert [ours] == scipys.tolist()
    else:
        np.testing.assert_array_equal(ours, scipys)


@pytest.mark.parametrize(
    "path",
    [
        "annotations/market1501/market_attribute.mat",
        "annotations/peta/PETA.mat",
        "pa100k_2000/PA-100K/annotation/annotation.mat",
    ],
)
def test_real_files_equal_scipy(shared_data, path):
    ours = matlab.read(shared_data / path)
    scipys = scipy.io.loadmat(shared_data / path)
    assert set(ours) == {name for name in scipys if not name.startswith("__")}
    for name, value in ours.items():
        assert_equal(value, scipys[name])


@pytest.mark.parametrize("compressed", [False, True])
def test_what_scipy_writes(tmp_path, compressed):
    content = {
        "numbers": np.arange(6.0).reshape(2, 3),
        "bytes": np.array([[1, 255]], np.uint8),
        "text": "Skirt&Dress",
        "umlaut": "Fußgänger",
        "rows": np.array(["one", "three"]),
        "cells": cells(["a", np.arange(3), {"field": 1.5}]),
        "struct": {"name": "x", "nested": {"deep": cells(["y"])}},
        "empty": np.zeros((0, 2)),
    }
    scipy.io.savemat(tmp_path / "x.mat", content, do_compression=compressed)
    read = matlab.read(tmp_path / "x.mat")
    np.testing.assert_array_equal(read["numbers"], content["numbers"])
    assert read["bytes"].dtype == np.uint8
    assert read["text"] == "Skirt&Dress"
    assert read["umlaut"] == "Fußgänger"
    assert read["rows"] == ["one", "three"]
    assert read["cells"][0] == "a"
    assert read["cells"][1].tolist() == [[0, 1, 2]]
    assert read["cells"][2]["field"] == 1.5
    assert read["struct"] == {"name": "x", "nested": {"deep": ["y"]}}
    assert read["empty"].shape == (0, 2)


def test_big_endian(tmp_path):
    """A file from another machine, byte by byte."""
    values = np.array([3, 4, 5], ">f8").tobytes()
    body = b"".join(
        np.array(words, ">u4").tobytes() + content
        for words, content in (
            ((6, 8, 6, 0), b""),
            ((5, 8, 1, 3), b""),
            ((1, 1), b"x" + bytes(7)),
            ((9, 24), values),
        )
    )
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    path = tmp_path / "x.mat"
    path.write_bytes(header + np.array([14, len(body)], ">u4").tobytes() + body)
    assert matlab.read(path)["x"].tolist() == [[3, 4, 5]]
    np.testing.assert_array_equal(scipy.io.loadmat(path)["x"], [[3, 4, 5]])


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", READERS)
def test_every_truncation_is_noticed(tmp_path, name, compressed):
    read, content = READERS[name]
    file = io.BytesIO()
    scipy.io.savemat(file, content, do_compression=compressed)
    whole = file.getvalue()
    path = tmp_path / "labels.mat"
    for length in range(0, len(whole), max(1, len(whole) // 100)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"^.*labels\.mat: "):
            read(path)


def damaged(content, seed, compressed):
    """A label file with one to four changed bytes."""
    file = io.BytesIO()
    scipy.io.savemat(file, content, do_compression=compressed)
    data, rng = bytearray(file.getvalue()), random.Random(seed)
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(128, min(len(data), 4000))] = rng.randrange(256)
    return bytes(data)


def test_scipy_ends_the_process_on_damaged_files_that_are_refused_here(tmp_path):
    """Where it no longer does, our own reader can go."""
    read, content = READERS["market"]
    for seed in range(110):
        path = tmp_path / f"{seed}.mat"
        path.write_bytes(damaged(content, seed, compressed=False))
        try:
            read(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
    code = """
import pathlib, sys, scipy.io
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        scipy.io.loadmat(path)
    except Exception:
        pass
"""
    ended = subprocess.run([sys.executable, "-c", code, tmp_path], check=False, timeout=300)
    assert ended.returncode in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_files_give_one_message(tmp_path_factory, data):
    read, content = READERS[data.draw(st.sampled_from(sorted(READERS)))]
    file = io.BytesIO()
    scipy.io.savemat(file, content, do_compression=data.draw(st.booleans()))
    damaged = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(128, min(len(damaged), 4000) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "labels.mat"
    path.write_bytes(damaged)
    try:
        read(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")


def damage(data, content):
    """Change one to four places of a text file."""
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(damaged) - 1))
        piece = data.draw(st.sampled_from([b"", b"\xff", b'"', b"\n", b"\0", b",", b"\r", b"1"]))
        damaged[start : start + data.draw(st.integers(0, 2))] = piece
    return bytes(damaged)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_tables_give_one_message(tmp_path_factory, data):
    rows = [f"PETA/images/0000{number}.png," + ",".join("01" * 20) for number in range(3)]
    path = tmp_path_factory.getbasetemp() / "labels.csv"
    path.write_bytes(damage(data, "\n".join(["# image," + ",".join(FILE_NAMES), *rows]).encode()))
    try:
        read_upar(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")


@pytest.fixture(scope="module")
def upar(tmp_path_factory):
    return beside(small_upar(tmp_path_factory.mktemp("upar")))


@pytest.mark.parametrize("name", ["queries.csv", "ids.csv"])
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_damaged_files_beside_the_labels_give_one_message(upar, tmp_path_factory, name, data):
    path = upar / "annotations" / "task2" / "val" / name
    sound = path.read_bytes()
    path.write_bytes(damage(data, sound))
    try:
        Upar(config="all", data_dir=tmp_path_factory.getbasetemp()).splits(upar)
    except ValueError as error:
        assert str(error).startswith(str(path))
    finally:
        path.write_bytes(sound)


def test_a_file_of_matlab_73_is_named_as_such(tmp_path):
    path = tmp_path / "annotation.mat"
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    path.write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(99))
    with pytest.raises(
        ValueError, match=r"annotation\.mat: .*a MATLAB v7\.3 file; in MATLAB, .*'-v7'"
    ):
        read_pa100k(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([[0.5]]), "is not an array of integers"),
        (np.array([[np.nan]]), "is not an array of integers"),
        (np.array([[np.inf]]), "is not an array of integers"),
        ("text", "is not an array of integers"),
        (np.array([[2]]), "labels other than 0 and 1"),
        (np.array([[1, 1]]), r"shape \(1, 2\); expected 1 pictures × 1 attributes"),
    ],
)
def test_bits_are_bits(value, message):
    with pytest.raises(ValueError, match=f"some.mat: labels .*{message}"):
        matlab.bits(value, (1, 1), pathlib.Path("some.mat"), "labels")


def test_a_text_is_a_list_of_one():
    path = pathlib.Path("some.mat")
    assert matlab.strings("a", path, "names") == ["a"]
    for wrong in (["a", ["b"]], np.zeros(2), {"a": "b"}):
        with pytest.raises(ValueError, match=r"some\.mat: names is not a list of strings"):
            matlab.strings(wrong, path, "names")
