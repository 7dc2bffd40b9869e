"""A folder of pictures, its index, and the command line."""

import io
import os

import numpy as np
import pytest
from PIL import Image
from samples import make_model, picture, save

import aima_jax
from aima_jax.cli import main
from aima_jax.search import IndexedFolder, PersonSearch, index_folder


def test_a_folder_is_searched_and_what_cannot_be_read_is_reported(search, folder):
    gallery, problems = index_folder(search, folder)
    assert gallery.names.tolist() == ["a.jpg", "b.png", "c.JPG", "d.png", "more/a.png"]
    assert np.array_equal(
        gallery.features, search.encode_images([folder / name for name in gallery.names])
    )
    assert len(problems) == 1
    assert "broken.jpg" in problems[0]


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
    gallery, _ = index_folder(search, folder)
    own = ["a.jpg", "b.png", "c.JPG", "d.png", "more/a.png", "linked.png"]
    assert gallery.names.tolist() == sorted([*own, *(f"linked/{name}" for name in kinds)])


def test_what_is_left_out_is_counted_by_reason(search, folder):
    for number in range(7):
        (folder / f"note{number}.txt").touch()
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "gone").symlink_to("nowhere")
    (folder / "more" / "up").symlink_to(folder)
    _, left_out = index_folder(search, folder)
    notes = ", ".join(f"note{number}.txt" for number in range(5))
    assert left_out[0].startswith("files that do not end in .jpg, ")
    assert left_out[0].endswith(f": 7 ({notes}, and 2 more)")
    assert left_out[1] == "links that lead nowhere: 2 (gone, gone.png)"
    assert left_out[2] == "links to folders that are in it already: 1 (more/up)"
    assert left_out[3].startswith(f"pictures that cannot be read: 1 ({folder}/broken.jpg: ")
    assert len(left_out) == 4


def test_a_folder_that_cannot_be_opened_is_told_of(search, folder, monkeypatch):
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    gallery, left_out = index_folder(search, folder)
    assert "more/a.png" not in gallery.names
    assert left_out[0].startswith("folders that cannot be opened: 1 ([Errno 13] Permission denied")


@pytest.mark.parametrize(
    "name",
    [
        *("._a.jpg", ".DS_Store", "desktop.ini", "@eaDir/a.jpg", "__MACOSX/a.jpg"),
        *(".ipynb_checkpoints/a-checkpoint.jpg", ".thumbnails/a.jpg"),
    ],
)
def test_what_systems_leave_is_not_a_picture(search, folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes((folder / "a.jpg").read_bytes())
    gallery, left_out = index_folder(search, folder)
    assert gallery.names.tolist() == ["a.jpg", "b.png", "c.JPG", "d.png", "more/a.png"]
    assert len(left_out) == 1  # broken.jpg


def encoded_by(search, monkeypatch):
    """Count the pictures that are encoded from now on."""
    counted = []
    encode = search.encode_pixels

    def counting(pixels):
        for features in encode(pixels):
            counted.append(features)
            yield features

    monkeypatch.setattr(search, "encode_pixels", counting)
    return counted


def test_an_index_saves_the_work_for_pictures_that_have_not_changed(
    search, folder, tmp_path, monkeypatch
):
    index = tmp_path / "index.features"
    first, _ = index_folder(search, folder, index=index)
    counted = encoded_by(search, monkeypatch)
    second, problems = index_folder(search, folder, index=index)
    assert not counted
    assert len(problems) == 1
    assert np.array_equal(first.features, second.features)
    assert first.names.tolist() == second.names.tolist()

    picture(10).save(folder / "b.png")
    picture(11).save(folder / "new.png")
    (folder / "a.jpg").unlink()
    third, _ = index_folder(search, folder, index=index)
    assert len(counted) == 2
    assert third.names.tolist() == ["b.png", "c.JPG", "d.png", "more/a.png", "new.png"]
    np.testing.assert_allclose(
        third.features, search.encode_images([folder / name for name in third.names]), atol=1e-6
    )
    kept = IndexedFolder.read(index)
    assert np.array_equal(kept.features, third.features)
    assert kept.names.tolist() == third.names.tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.features", "pictures"]


def test_an_index_of_another_model_is_made_anew(search, folder, tmp_path):
    index_folder(search, folder, index=tmp_path / "index.npz")
    other = aima_jax.load(save(tmp_path / "other", make_model(seed=1)))
    gallery, _ = index_folder(other, folder, index=tmp_path / "index.npz")
    expected = other.encode_images([folder / name for name in gallery.names])
    np.testing.assert_allclose(gallery.features, expected, atol=1e-6)
    assert IndexedFolder.read(tmp_path / "index.npz").model == gallery.model


def test_what_was_encoded_before_an_interruption_is_kept(search, folder, tmp_path, monkeypatch):
    encode = search.encode_pixels

    def interrupted(pixels):
        for count, features in enumerate(encode(pixels)):
            if count == 3:
                raise KeyboardInterrupt
            yield features

    monkeypatch.setattr(search, "encode_pixels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index_folder(search, folder, index=tmp_path / "index.npz")
    assert IndexedFolder.read(tmp_path / "index.npz").names.tolist() == ["a.jpg", "b.png", "c.JPG"]


def test_a_file_that_is_no_index_is_refused_and_left_alone(search, folder, tmp_path):
    index_folder(search, folder, index=tmp_path / "index.npz")
    whole = (tmp_path / "index.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    pickled = io.BytesIO()
    np.savez(pickled, model="", names=np.array([{}]), stamps=np.zeros((1, 2)), features=np.eye(1))
    wrong_shape = io.BytesIO()
    np.savez(wrong_shape, model="", names=["a"], stamps=np.zeros((2, 2)), features=np.eye(1))
    array = io.BytesIO()
    np.save(array, np.eye(2))
    for content in (
        b"",
        b"text",
        whole[:-50],
        whole[: len(whole) // 3],
        bytes(flipped),
        pickled.getvalue(),
        wrong_shape.getvalue(),
        array.getvalue(),
    ):
        path = tmp_path / "wrong.npz"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"wrong\.npz is not an index"):
            index_folder(search, folder, index=path)
        assert path.read_bytes() == content


def test_the_command_line_prints_and_draws_what_it_found(workdir, folder, tmp_path, capsys):
    out = tmp_path / "ranking.png"
    common = ["--workdir", str(workdir), "--images", str(folder), "--k", "3"]
    assert main(["search", "gender=female,upper_color=red", *common, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    search = PersonSearch.load(workdir)
    gallery, _ = index_folder(search, folder)
    ranked = search.rank({"gender": "female", "upper_color": "red"}, gallery.features, 3)
    assert "A woman wears a red top." in printed.out
    lines = printed.out.splitlines()
    for place, (index, score) in enumerate(ranked, start=1):
        assert f"{place:4}  {score:z6.3f}  {gallery.names[index]}" in lines
    assert "broken.jpg" in printed.err
    with Image.open(out) as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": "gendre=female"}, "did you mean 'gender'"),
        ({"--images": "missing"}, "no folder"),
        ({"--images": "empty"}, "no picture"),
        ({"--images": "unreadable"}, "no readable picture"),
        ({"--workdir": "missing"}, "no sound checkpoint"),
        ({"--k": "0"}, "1 or more"),
        ({"--images": "~/missing"}, "no folder /home/of/someone/missing"),
        ({"--images": "s3://bucket/x"}, "s3:// are not supported"),
        ({"--workdir": "gs://bucket/run"}, "gs:// are not supported"),
        ({"--out": "missing/ranking.png"}, "missing/ranking.png: there is no folder /"),
        ({"--index": "missing/index.npz"}, "missing/index.npz: there is no folder /"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    workdir, folder, tmp_path, monkeypatch, capsys, changes, message
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable" / "a.png").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/of/someone")
    options = {"query": "hat", "--workdir": str(workdir), "--images": str(folder)} | changes
    query = options.pop("query")
    assert main(["search", query, *(text for pair in options.items() for text in pair)]) == 2
    error = capsys.readouterr().err
    assert "error: " in error
    assert message in error
    assert "Traceback" not in error
