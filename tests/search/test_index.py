"""A folder of pictures becomes a gallery, at once, in parts, and whatever interrupts it."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from samples import make_model, picture, save

import aima_jax
from aima_jax.cli import main
from aima_jax.search import Gallery, index_folder

NAMES = ["a.jpg", "b.png", "c.JPG", "d.png", "more/a.png"]


def all_of(gallery):
    """Every picture of a gallery, by name."""
    keys = {name: known.key for name, known in gallery.known().items() if not known.unreadable}
    rows = gallery.rows(keys.values())
    assert list(keys) == list(rows.names)
    return {
        name: (feature, facts)
        for name, feature, facts in zip(rows.names, rows.features, rows.facts, strict=True)
    }


def files_of(place):
    """The bytes of all that counts in a gallery's folder."""
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in sorted(pathlib.Path(place).rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def counting(search, monkeypatch):
    """Count the pictures that are encoded from now on."""
    counted, encode = [], search.encode_pixels

    def encode_pixels(pixels):
        for features in encode(pixels):
            counted.append(features)
            yield features

    monkeypatch.setattr(search, "encode_pixels", encode_pixels)
    return counted


def test_a_folder_is_indexed_and_what_cannot_be_read_is_reported(search, folder, tmp_path):
    gallery, problems = index_folder(search, folder, tmp_path / "gallery")
    found = all_of(gallery)
    assert sorted(found) == NAMES
    expected = search.encode_images([folder / name for name in NAMES])
    np.testing.assert_array_equal([found[name][0] for name in NAMES], expected)
    assert len(problems) == 1
    assert "broken.jpg" in problems[0]
    assert len(gallery) == 5 and gallery.columns == ("name",)
    assert gallery.folder == folder and gallery.model_id == search.model_id


def test_linked_folders_are_followed_once_and_every_format_is_read(search, folder, tmp_path):
    """The names are those of plain loops; a link back into the folder does not lead in circles."""
    kinds = ["x.webp", "x.bmp", "x.tif", "x.TIFF", "x.jpeg"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for seed, name in enumerate(kinds):
        picture(seed + 20).save(elsewhere / name)
    (folder / "linked").symlink_to(elsewhere)
    (folder / "twice").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    (folder / "linked.png").symlink_to(elsewhere / "x.bmp")
    (folder / "again").symlink_to(folder / "more")  # what is in the folder keeps its own name
    gallery, _ = index_folder(search, folder, tmp_path / "gallery")
    own = [*NAMES, "linked.png", *(f"linked/{name}" for name in kinds)]
    assert sorted(all_of(gallery)) == sorted(own)


def test_what_is_left_out_is_counted_by_reason(search, folder, tmp_path):
    for number in range(7):
        (folder / f"note{number}.txt").touch()
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "gone").symlink_to("nowhere")
    (folder / "more" / "up").symlink_to(folder)
    for _ in range(2):  # told again by a gallery that knows of them
        _, left_out = index_folder(search, folder, tmp_path / "gallery")
        notes = ", ".join(f"note{number}.txt" for number in range(5))
        assert left_out[0].startswith("files that do not end in .jpg, ")
        assert left_out[0].endswith(f": 7 ({notes}, and 2 more)")
        assert left_out[1] == "links that lead nowhere: 2 (gone, gone.png)"
        assert left_out[2] == "links to folders that are in it already: 1 (more/up)"
        assert left_out[3].startswith(f"pictures that cannot be read: 1 ({folder}/broken.jpg: ")
        assert len(left_out) == 4


def test_a_folder_that_cannot_be_opened_is_told_of(search, folder, tmp_path, monkeypatch):
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    gallery, left_out = index_folder(search, folder, tmp_path / "gallery")
    assert "more/a.png" not in all_of(gallery)
    assert left_out[0].startswith("folders that cannot be opened: 1 ([Errno 13] Permission denied")


@pytest.mark.parametrize(
    "name",
    [
        *("._a.jpg", ".DS_Store", "desktop.ini", "@eaDir/a.jpg", "__MACOSX/a.jpg"),
        *(".ipynb_checkpoints/a-checkpoint.jpg", ".thumbnails/a.jpg"),
    ],
)
def test_what_systems_leave_is_not_a_picture(search, folder, tmp_path, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes((folder / "a.jpg").read_bytes())
    gallery, left_out = index_folder(search, folder, tmp_path / "gallery")
    assert sorted(all_of(gallery)) == NAMES
    assert len(left_out) == 1  # broken.jpg


def test_indexing_again_encodes_what_is_new_and_forgets_what_is_gone(
    search, folder, tmp_path, monkeypatch
):
    place = tmp_path / "gallery"
    index_folder(search, folder, place)
    counted = counting(search, monkeypatch)
    before = files_of(place)
    _, problems = index_folder(search, folder, place)
    assert not counted and files_of(place) == before
    assert len(problems) == 1

    picture(10).save(folder / "b.png")
    picture(11).save(folder / "new.png")
    picture(12).save(folder / "broken.jpg")
    (folder / "a.jpg").unlink()
    (folder / "d.png").write_text("no picture any more")
    gallery, problems = index_folder(search, folder, place)
    assert len(counted) == 3
    assert len(problems) == 1 and "d.png" in problems[0]
    for each in (gallery, Gallery(place)):
        found = all_of(each)
        assert sorted(found) == ["b.png", "broken.jpg", "c.JPG", "more/a.png", "new.png"]
        expected = search.encode_images([folder / name for name in found])
        np.testing.assert_allclose([row for row, _ in found.values()], expected, atol=1e-6)
        scores, keys = each.nearest(expected, 5)
        assert each.rows(keys[:, 0]).names == list(found)
        np.testing.assert_allclose(scores[:, 0], 1, atol=1e-5)


def test_facts_come_from_names_and_from_a_csv_file(search, folder, tmp_path, monkeypatch):
    named = "0002_c3s1_000451_03.jpg"
    picture(5).save(folder / named)
    place = tmp_path / "gallery"
    gallery, _ = index_folder(search, folder, place)
    assert all_of(gallery)[named][1] == {"identity": 2, "camera": 3, "sequence": 1, "frame": 451}
    assert all_of(gallery)["a.jpg"][1] == {}
    assert gallery.columns == ("name", "camera", "frame", "identity", "sequence")
    counted = counting(search, monkeypatch)
    csv = tmp_path / "facts.csv"
    csv.write_text(f"image,camera,time,place\na.jpg,1,2.5,hall\n{named},7,,\nnowhere.jpg,1,1,x\n")
    run = ["index", str(folder), "--workdir", str(search.checkpoint.parent.parent)]
    assert main([*run, "--out", str(place), "--metadata", str(csv)]) == 0
    gallery = Gallery(place)
    found = all_of(gallery)
    assert found[named][1] == {"identity": 2, "camera": 7, "sequence": 1, "frame": 451}
    assert found["a.jpg"][1] == {"camera": 1, "time": 2.5, "place": "hall"}
    assert len(gallery) == 6 and not counted
    _, keys = gallery.nearest(np.eye(1, search.dim), 9, "camera in (1, 7) and not time > 2")
    assert gallery.rows(keys[0]).names == [named]
    index_folder(search, folder, place)  # what is not said again stays
    assert all_of(Gallery(place))["a.jpg"][1]["place"] == "hall"


def test_several_hosts_index_parts_of_one_gallery(search, folder, tmp_path):
    place = tmp_path / "gallery"
    for number in (2, 0, 1):
        index_folder(search, folder, place, part=(number, 3))
    whole, _ = index_folder(search, folder, tmp_path / "whole")
    found, expected = all_of(Gallery(place)), all_of(whole)
    assert found.keys() == expected.keys()
    for name, (feature, _) in expected.items():
        np.testing.assert_allclose(found[name][0], feature, atol=1e-6)
    before = files_of(place)
    index_folder(search, folder, place)
    assert files_of(place) == before


def test_half_precision_halves_the_features(search, folder, tmp_path):
    place = tmp_path / "gallery"
    gallery, _ = index_folder(search, folder, place, dtype="float16")
    features = np.load(place / "parts" / "000000" / "features.npy")
    assert features.dtype == np.float16
    exact = search.encode_images([folder / name for name in NAMES])
    np.testing.assert_allclose(gallery.nearest(exact, 1)[0][:, 0], 1, atol=1e-3)


def test_what_was_done_before_an_interruption_is_kept(search, folder, tmp_path, monkeypatch):
    index_folder(search, folder, tmp_path / "whole", rows_of_a_part=2)
    encode, place = search.encode_pixels, tmp_path / "gallery"

    def interrupted(pixels):
        for row in encode(pixels):
            if sum(1 for _ in place.glob("parts/0*")) == 2:
                raise KeyboardInterrupt
            yield row

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(search, "encode_pixels", interrupted)
        index_folder(search, folder, place, rows_of_a_part=2)
    assert sorted(all_of(Gallery(place))) == ["a.jpg", "b.png", "c.JPG"]
    index_folder(search, folder, place, rows_of_a_part=2)
    assert files_of(place) == files_of(tmp_path / "whole")


def test_killed_in_the_middle_it_ends_with_the_same_gallery(workdir, search, folder, tmp_path):
    """SIGKILL, while the second part is being written; tests/tools/kill_index.py kills more."""
    index_folder(search, folder, tmp_path / "whole", rows_of_a_part=1)
    place = tmp_path / "gallery"
    code = (
        "import sys, time, aima_jax, numpy\n"
        "from aima_jax.search import folder_gallery, index_folder\n"
        "save = numpy.save\n"
        "numpy.save = lambda *args, **kwargs: (time.sleep(0.1), save(*args, **kwargs))\n"
        f"index_folder(aima_jax.load({str(workdir)!r}), {str(folder)!r}, {str(place)!r}, "
        "rows_of_a_part=1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (place / "parts" / ".000001.tmp").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(Gallery(place)) < 5
    index_folder(search, folder, place, rows_of_a_part=1)
    assert files_of(place) == files_of(tmp_path / "whole")


def test_what_is_wrong_is_said(search, folder, tmp_path):
    place = tmp_path / "gallery"
    with pytest.raises(ValueError, match="float32 or float16"):
        index_folder(search, folder, place, dtype="int8")
    index_folder(search, folder, place)
    other = aima_jax.load(save(tmp_path / "other", make_model(seed=1)))
    with pytest.raises(ValueError, match="was made by another model"):
        index_folder(other, folder, place)
    shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(ValueError, match="has the pictures of"):
        index_folder(search, tmp_path / "copy", place)
    with pytest.raises(ValueError, match="is not a gallery"):
        index_folder(search, folder, folder)
    for name, text, message in (
        ("x.csv", "camera\n1\n", "no column is called name or image"),
        ("x.csv", "name,a b\nx,1\n", "of letters, digits"),
        ("x.csv", "name,a\nx,1\nx,2\n", "x has two rows"),
        ("x.csv", "name,a\nx,1,2\n", "row 2: 3 values; expected 2"),
        ("y.csv", None, "no file"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            aima_jax.search.index.read_facts(tmp_path / name)


@pytest.mark.parametrize("part", ["0/2", "3/2", "a", "1/0"])
def test_a_part_that_is_none_is_refused(workdir, folder, tmp_path, capsys, part):
    run = ["index", str(folder), "--workdir", str(workdir), "--out", str(tmp_path / "gallery")]
    assert main([*run, "--part", part]) == 2
    assert "the third of 16" in capsys.readouterr().err
