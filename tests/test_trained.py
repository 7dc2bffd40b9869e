"""The default run, and the README's and the notebook's examples on what it has trained."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from aima_jax.attributes import agreement
from aima_jax.data import open_dataset, prepared_folder
from configs import synthetic

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# As a user has it, without the tests' flags, which compile quickly and compute slowly.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}

pytestmark = pytest.mark.trained


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `runs/synthetic`, trained as the README says."""
    place = tmp_path_factory.mktemp("place")
    command = [sys.executable, str(ROOT / "run.py"), f"--config={ROOT / 'configs/synthetic.py'}"]
    subprocess.run(
        [*command, f"--config.data_dir={place / 'data'}"], cwd=place, env=ENVIRONMENT, check=True
    )
    return place


@pytest.fixture(scope="module")
def split(place):
    """The pictures that the default run was tested on."""
    config = synthetic.get_config()
    config.data_dir = str(place / "data")
    return open_dataset(prepared_folder(config)).split("test")


@pytest.fixture(scope="module")
def pictures(place, split):
    """A folder of them, `FOLDER` in the README's command, and its `a.jpg` and `b.jpg`."""
    folder = place / "FOLDER"
    folder.mkdir()
    for index in range(len(split)):
        (folder / f"{index:04}.jpg").write_bytes(split.bytes(index))
    for index, name in enumerate(("a.jpg", "b.jpg")):
        (place / name).write_bytes(split.bytes(index))
    return folder


def test_the_default_run_learns(place):
    results = json.loads((place / "runs" / "synthetic" / "results.json").read_text())
    assert results["protocols"]["standard"]["R1"] > 0.5
    assert results["random"]["R1"] < 0.05


def test_half_of_the_first_ten_are_what_the_readme_asks_for(place, split, pictures):
    (command,) = re.findall(r"^aima (search .*)$", README, re.MULTILINE)
    arguments = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-m", "aima_jax.cli", *arguments, "--json"],
        cwd=place,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    ranked = [pathlib.Path(each["path"]).stem for each in json.loads(done.stdout)["found"]]
    said = split.schema.said(split.schema.parse(arguments[1]))
    agrees = agreement(split.attributes, said[None])[:, 0]
    assert agrees.mean() < 0.05
    assert agrees[[int(name) for name in ranked[:10]]].sum() >= 5
    assert (place / "ranking.png").stat().st_size > 10_000


def test_the_readme_in_python(place, pictures, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(place)
    names = {}
    exec(code, names)
    ranked = names["search"].rank({"gender": "female", "upper_color": "red"}, names["gallery"])
    assert sorted(index for index, _ in ranked) == [0, 1]
