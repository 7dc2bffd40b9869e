"""`aima search`, and what it says where something is wrong."""

import sys

import pytest
from PIL import Image

from aima_jax.cli import main
from aima_jax.search import PersonSearch


def test_the_command_line_prints_and_draws_what_it_found(
    workdir, folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    out = tmp_path / "ranking.png"
    common = ["--workdir", str(workdir), "--images", str(folder), "--k", "3"]
    assert main(["search", "gender=female,upper_color=red", *common, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    search = PersonSearch.load(workdir)
    names = ["a.jpg", "b.png", "c.JPG", "d.png", "more/a.png"]
    features = search.encode_images([folder / name for name in names])
    ranked = search.rank({"gender": "female", "upper_color": "red"}, features, 3)
    assert "A woman wears a red top." in printed.out
    lines = printed.out.splitlines()
    for place, (index, score) in enumerate(ranked, start=1):
        assert f"{place:4}  {score:z6.3f}  {names[index]}" in lines
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
