"""Rendered pedestrians through TFDS, and rendered by several processes."""

import io
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from aima_jax.data.prepared import load_labels
from tfds_builders.prepare import find, prepare
from tfds_builders.synthetic_pedestrians import splits as module
from tfds_builders.synthetic_pedestrians.builder import SyntheticPedestrians
from tfds_builders.synthetic_pedestrians.schema import SCHEMA as synthetic_schema
from tfds_builders.synthetic_pedestrians.splits import Size, plan

SIZE = Size(train=24, val=4, test=10, seed=7)

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    builder = SyntheticPedestrians(config=SIZE.name, data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return builder


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_records_are_what_was_planned(built, split):
    planned = plan(SIZE)[split]
    records = built.as_data_source(split)
    assert len(records) == planned.pictures
    for index, record in enumerate(records):
        shown = planned.assignment(index)
        np.testing.assert_array_equal(record["attributes"], shown.attributes)
        assert record["identity"] == shown.identity
        assert record["camera"] == shown.camera
        assert record["filename"].decode() == shown.filename
        image = np.asarray(PIL.Image.open(io.BytesIO(planned.render(index))))
        np.testing.assert_array_equal(record["image"], image)


def test_the_folder_tells_sizes_apart(built):
    other = SyntheticPedestrians(config=Size(24, 4, 10, 8).name, data_dir=built.data_dir)
    assert SIZE.name in str(built.data_path)
    assert other.data_path != built.data_path


def test_the_default_is_the_first_config(tmp_path):
    builder = SyntheticPedestrians(data_dir=tmp_path)
    assert builder.builder_config.name == SyntheticPedestrians.config_name("") == Size().name
    assert builder.schema is synthetic_schema


def test_a_config_that_is_no_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="size 'huge' is unknown"):
        SyntheticPedestrians(config="huge", data_dir=tmp_path)


def test_prepare_takes_any_size_and_keeps_sizes_apart(tmp_path):
    folder = prepare(f"synthetic_pedestrians/{SIZE.name}", data_dir=tmp_path)
    assert folder == find(f"synthetic_pedestrians/{SIZE.name}", data_dir=tmp_path)
    assert find(f"synthetic_pedestrians/{Size(24, 4, 10, 8).name}", data_dir=tmp_path) is None
    for name, split in plan(SIZE).items():
        labels = load_labels(folder, name)
        shown = [split.assignment(index) for index in range(split.pictures)]
        np.testing.assert_array_equal(labels["attributes"], [one.attributes for one in shown])
        assert labels["identity"].tolist() == [one.identity for one in shown]
        assert labels["filename"].tolist() == [one.filename for one in shown]


@pytest.fixture(scope="module")
def contact_sheet():
    """The script that draws the README's picture, without its command line."""
    return runpy.run_path(ROOT / "docs/images/synthetic_pedestrians.py")["contact_sheet"]


def test_the_contact_sheet_shows_a_strip_for_each_category(contact_sheet):
    sheet = contact_sheet(plan(Size(10, 4, 300, 0))["test"], rows=1, columns=2)
    pixels = np.asarray(sheet)
    blank = (pixels == 255).all(-1)
    assert sheet.width > sheet.height
    assert 0.5 < 1 - blank.mean() < 0.95


def test_a_sheet_of_too_small_a_set_is_refused(contact_sheet):
    with pytest.raises(ValueError, match="larger --size"):
        contact_sheet(plan(SIZE)["test"], rows=6, columns=2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_pictures(workers):
    split = plan(SIZE)["train"]
    alone = list(module.render_split(SIZE, split, workers=0))
    assert list(module.render_split(SIZE, split, workers=workers)) == alone
    assert len(set(alone)) == SIZE.train


PLAIN_SCRIPT = """
import concurrent.futures
import multiprocessing
import sys
from tfds_builders.synthetic_pedestrians.splits import Size, plan, render_split

size = Size(train=8, val=4, test=10, seed=7)
split = plan(size)["train"]
if sys.argv[1] == "ours":
    pictures = list(render_split(size, split, workers=2))
else:
    context = multiprocessing.get_context(sys.argv[1])
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        pictures = list(pool.map(split.render, range(8)))
print(len(set(pictures)), "pictures")
"""


@pytest.mark.parametrize("way", ["ours", "spawn", "forkserver"])
def test_a_plain_script_can_render_in_processes_by_our_workers_alone(way, tmp_path):
    """One without `if __name__ == "__main__"`. Where multiprocessing can, our workers can go."""
    path = tmp_path / "plain.py"
    path.write_text(PLAIN_SCRIPT)
    command = [sys.executable, str(path), way]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ("8 pictures" in done.stdout) == (way == "ours"), done.stderr


def test_a_dead_worker_is_reported(monkeypatch):
    command = (sys.executable, "-c", "")
    monkeypatch.setattr(
        module, "_start", lambda *_: subprocess.Popen(command, stdout=subprocess.PIPE)
    )
    with pytest.raises(RuntimeError, match="picture 0 of train was not rendered"):
        list(module.render_split(SIZE, plan(SIZE)["train"], workers=2))


def test_workers_end_when_no_more_pictures_are_wanted(monkeypatch):
    endless = "import sys\nwhile True: sys.stdout.buffer.write(b'\\1\\0\\0\\0x')"
    started = []

    def start(*_):
        command = (sys.executable, "-c", endless)
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        return started[-1]

    monkeypatch.setattr(module, "_start", start)
    pictures = module.render_split(SIZE, plan(SIZE)["train"], workers=2)
    assert next(pictures) == b"x"
    pictures.close()
    assert [process.poll() is not None for process in started] == [True, True]
