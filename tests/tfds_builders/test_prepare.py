"""Preparing is atomic, notices every damage afterwards, and survives what interrupts it."""

import errno
import json
import os
import pathlib
import random
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from stand_ins import folder_contents, picture, small_pa100k, small_peta

from aima_jax.attributes import AttributeSchema
from aima_jax.cli import main
from aima_jax.data import open_dataset, prepared
from aima_jax.files import write_sealed_json
from tfds_builders.pa100k.schema import SCHEMA as pa100k_schema
from tfds_builders.prepare import check, find, prepare
from tfds_builders.records import PersonSearchBuilder, Record, SplitRecords

PREPARE = (sys.executable, "-m", "tfds_builders.prepare", "pa100k")
PROJECT = pathlib.Path(__file__).resolve().parents[2]


def test_prepared_folder(raw, data):
    assert find("pa100k", data_dir=data) is None
    folder = prepare("pa100k", manual_dir=raw, data_dir=data)
    assert find("pa100k", data_dir=data) == folder
    assert folder_contents(data) == [
        "pa100k",
        "pa100k/1.0.0",
        "pa100k/1.0.0/dataset_info.json",
        "pa100k/1.0.0/features.json",
        "pa100k/1.0.0/labels-test.npz",
        "pa100k/1.0.0/labels-train.npz",
        "pa100k/1.0.0/labels-val.npz",
        "pa100k/1.0.0/manifest.json",
        "pa100k/1.0.0/pa100k-test.array_record-00000-of-00001",
        "pa100k/1.0.0/pa100k-train.array_record-00000-of-00001",
        "pa100k/1.0.0/pa100k-val.array_record-00000-of-00001",
    ]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["dataset"] == "pa100k"
    assert manifest["counts"] == {"train": 6, "val": 1, "test": 3}
    assert AttributeSchema.from_dict(manifest["schema"]) == pa100k_schema
    labels = prepared.load_labels(folder, "train")
    assert {name: column.dtype.kind for name, column in labels.items()} == {
        "attributes": "u",
        "identity": "i",
        "camera": "i",
        "filename": "U",
    }
    assert (labels["attributes"].dtype, labels["identity"].dtype) == (np.uint8, np.int32)


def test_prepares_once(raw, data):
    folder = prepare("pa100k", manual_dir=raw, data_dir=data)
    written = (folder / "manifest.json").stat().st_mtime_ns
    assert prepare("pa100k", manual_dir=data / "nowhere", data_dir=data) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == written


def test_contents_are_the_same_in_every_place(raw, tmp_path):
    """The records' checksum depends on the raw files alone."""
    contents = [
        prepared.read_manifest(prepare("pa100k", manual_dir=raw, data_dir=tmp_path / place))[
            "contents"
        ]
        for place in ("here", "there")
    ]
    assert contents[0] == contents[1]
    path = raw / "PA-100K" / "release_data" / "release_data" / "000008.jpg"
    path.unlink()
    path.write_bytes(picture(99))
    other = prepare("pa100k", manual_dir=raw, data_dir=tmp_path / "elsewhere")
    changed = prepared.read_manifest(other)["contents"]
    assert changed["train"] == contents[0]["train"]
    assert changed["test"] != contents[0]["test"]


def test_configs_lie_beside_each_other(tmp_path, data):
    raw = small_peta(tmp_path / "raw")
    folders = [prepare(name, manual_dir=raw, data_dir=data) for name in ("peta", "peta/random5")]
    assert folders == [data / "peta" / "sal" / "1.0.0", data / "peta" / "random5" / "1.0.0"]
    assert find("peta/sal", data_dir=data) == folders[0]
    assert [prepared.read_verified(folder)["dataset"] for folder in folders] == [
        "peta/sal",
        "peta/random5",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "market",
            r"'market' is unknown; expected one of folder, market1501_attribute, pa100k, peta",
        ),
        ("peta/random6", r"'peta/random6' is unknown; expected peta with one of sal, random1"),
        ("pa100k/small", r"'pa100k/small' is unknown; expected pa100k alone"),
        ("../peta", r"'\.\./peta' is unknown"),
    ],
)
def test_unknown_dataset(raw, data, name, message):
    for function in (prepare, find, check):
        with pytest.raises(ValueError, match=message):
            function(name, data_dir=data)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("damage", [flip, truncate, pathlib.Path.unlink])
def test_every_damage_is_found_and_named(raw, data, damage):
    folder = prepare("pa100k", manual_dir=raw, data_dir=data)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        damage(path)
        with pytest.raises(ValueError, match=path.name):
            check("pa100k", data_dir=data)
        path.write_bytes(content)
    assert check("pa100k", data_dir=data)["counts"]["train"] == 6
    (folder / "stray.txt").touch()
    (folder / ".DS_Store").touch()
    assert check("pa100k", data_dir=data)["counts"]["train"] == 6


def test_every_flipped_bit_of_the_manifest_is_found(raw, data):
    folder = prepare("pa100k", manual_dir=raw, data_dir=data)
    path = folder / "manifest.json"
    content = path.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(content)), 400):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"manifest\.json"):
            prepared.read_manifest(folder)


def test_folder_without_manifest_is_never_complete(raw, data):
    """As TFDS alone leaves it, or as a person who deletes the manifest."""
    folder = prepare("pa100k", manual_dir=raw, data_dir=data)
    (folder / "manifest.json").unlink()
    for function in (prepare, find, check):
        with pytest.raises(
            ValueError, match=r"manifest\.json is missing: move the folder away and prepare"
        ):
            function("pa100k", data_dir=data)


def test_counts_are_checked(raw, data):
    folder = prepare("pa100k", manual_dir=raw, data_dir=data)
    (folder / "manifest.json").unlink()
    prepared.write_manifest(
        folder, dataset="pa100k", schema={}, wording={}, traits={}, counts={"val": 2}, contents={}
    )
    with pytest.raises(ValueError, match=r"labels-val\.npz has 1 records, not 2"):
        check("pa100k", data_dir=data)


def test_disk_full_while_the_labels_are_written(raw, data, monkeypatch):
    def full(path, **_):
        pathlib.Path(path).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match=r"pa100k could not be prepared: the disk is full"):
        prepare("pa100k", manual_dir=raw, data_dir=data)
    assert not data.exists()


def test_disk_full_while_the_records_are_written(tmp_path, data):
    """Files may not grow beyond 32 KiB, which the writer of the records meets as a full disk."""
    raw = small_pa100k(tmp_path / "raw", train=200, val=2, test=2)
    limits = (
        "import resource, runpy, signal, sys; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, 2**15)); "
        "sys.argv[0] = 'prepare'; "
        "runpy.run_module('tfds_builders.prepare', run_name='__main__')"
    )
    command = [sys.executable, "-c", limits, *PREPARE[3:]]
    done = subprocess.run(
        [*command, f"--manual_dir={raw}", f"--data_dir={data}"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert not data.exists()


def test_places_are_those_of_the_environment_and_of_the_home(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    shutil.copytree(raw, tmp_path / "home/tensorflow_datasets/downloads/manual")
    home = prepare("pa100k")
    assert home == tmp_path / "home/tensorflow_datasets/pa100k/1.0.0"
    shutil.copytree(raw, tmp_path / "env/downloads/manual")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "env"))
    assert find("pa100k") is None
    assert prepare("pa100k") == tmp_path / "env/pa100k/1.0.0"
    given = prepare("pa100k", manual_dir="~/tensorflow_datasets/downloads/manual", data_dir="~/own")
    assert given == tmp_path / "home/own/pa100k/1.0.0" == find("pa100k", data_dir="~/own")
    with pytest.raises(ValueError, match="gs://"):
        prepare("pa100k", data_dir="gs://bucket/data")


def test_no_home_is_asked_for_where_nothing_is_kept_there(raw, tmp_path, monkeypatch):
    monkeypatch.setattr("tfds_builders.prepare._HOME", "~nobody-of-this-name/data")
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    data = tmp_path / "data"
    prepare("synthetic_pedestrians/train2-val2-test2-seed0", data_dir=data)
    folder = prepare("pa100k", manual_dir=raw, data_dir=data)
    assert prepare("pa100k", data_dir=data) == folder
    for places in ({"data_dir": tmp_path / "new"}, {"manual_dir": raw}):
        with pytest.raises(ValueError, match="no home folder is known for ~nobody"):
            prepare("pa100k", **places)


def make_format_1(folder):
    """Write the manifest as the first version did."""
    manifest = prepared.read_manifest(folder)
    for name in ("format", "wording", "traits"):
        del manifest[name]
    write_sealed_json(folder / "manifest.json", manifest)


def test_format_1_is_refused_with_the_command_that_writes_it_anew(tmp_path, data, capsys):
    raw = small_peta(tmp_path / "raw")
    folder = prepare("peta/random1", manual_dir=raw, data_dir=data)
    before = prepared.read_manifest(folder)
    make_format_1(folder)
    for function in (prepare, find, check, lambda *_, **__: open_dataset(folder)):
        with pytest.raises(ValueError, match="has format 1, from an earlier version") as refused:
            function("peta/random1", data_dir=data)
    command = str(refused.value).split("with: aima ")[1]
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    shutil.rmtree(raw)
    assert main(shlex.split(command)) == 0
    assert "peta/random1 is prepared" in capsys.readouterr().out
    assert prepared.read_verified(folder) == before
    changed = [path.name for path, time in written.items() if path.stat().st_mtime_ns != time]
    assert changed == ["manifest.json"]


@pytest.mark.parametrize("damage", ["a record", "other attributes"])
def test_format_1_is_not_renewed_where_it_is_something_else(damage, raw, data, capsys):
    folder = prepare("pa100k", manual_dir=raw, data_dir=data)
    make_format_1(folder)
    if damage == "a record":
        flip(next(folder.glob("*train.array_record*")))
    else:
        manifest = prepared.read_manifest(folder, version=1)
        manifest["schema"]["groups"][0]["name"] = "other"
        del manifest["files"]["features.json"]
        write_sealed_json(folder / "manifest.json", manifest)
    assert main(["prepare", "pa100k", f"--manual_dir={raw}", f"--data_dir={data}"]) == 2
    expected = "array_record" if damage == "a record" else "with other attributes: move the folder"
    assert expected in capsys.readouterr().err
    with pytest.raises(ValueError, match="format 1"):
        check("pa100k", data_dir=data)


def test_a_format_of_the_future_is_refused(raw, data):
    folder = prepare("pa100k", manual_dir=raw, data_dir=data)
    manifest = prepared.read_manifest(folder)
    write_sealed_json(folder / "manifest.json", {**manifest, "format": 3})
    with pytest.raises(ValueError, match="has format 3; expected 2: update AIMA-JAX"):
        prepare("pa100k", manual_dir=raw, data_dir=data)


def test_command_line(raw, data, capsys):
    command = ["prepare", "pa100k", f"--manual_dir={raw}", f"--data_dir={data}"]
    assert main([*command, "--check"]) == 2
    assert "error: " in capsys.readouterr().err
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.out == "pa100k is prepared: train 6, val 1, test 3\n"
    assert "train: 6/6 pictures" in shown.err
    assert main([*command, "--check"]) == 0
    assert capsys.readouterr().out == "pa100k is intact: train 6, val 1, test 3\n"


def test_needs_no_tensorflow():
    code = (
        "import sys; import tfds_builders.prepare, tfds_builders.market1501_attribute, "
        "tfds_builders.peta, tfds_builders.pa100k; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


@pytest.mark.parametrize("count", [2, 4])
def test_a_builder_must_give_as_many_records_as_it_says(tmp_path, count):
    class Miscounting(PersonSearchBuilder, skip_registration=True):
        """Say that there are three."""

        schema = pa100k_schema

        def splits(self, manual_dir):
            bits = np.zeros(26, np.uint8)
            records = [Record(f"{number}.jpg", picture(0), bits) for number in range(count)]
            return {"train": SplitRecords(3, records)}

    with pytest.raises(ValueError, match=r"argument 2 is (shorter|longer) than argument 1"):
        Miscounting(data_dir=tmp_path, file_format="array_record").download_and_prepare()
