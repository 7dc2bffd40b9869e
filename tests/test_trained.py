"""The default run, and the README's and the notebook's examples on what it has trained."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.trained


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `runs/synthetic`, trained as the README says, and some pictures."""
    place = tmp_path_factory.mktemp("place")
    command = [sys.executable, str(ROOT / "run.py"), f"--config={ROOT / 'configs/synthetic.py'}"]
    subprocess.run([*command, f"--config.data_dir={place / 'data'}"], cwd=place, check=True)
    return place


@pytest.fixture(scope="module")
def pictures(place):
    folder = place / "pictures"
    folder.mkdir()
    for seed, name in enumerate(["a.jpg", "b.jpg", "c.jpg", "d.jpg"]):
        pixels = np.random.default_rng(seed).integers(0, 256, (128, 64, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / name)
    return folder


def test_the_default_run_learns(place):
    results = json.loads((place / "runs" / "synthetic" / "results.json").read_text())
    assert results["protocols"]["standard"]["R1"] > 0.5
    assert results["random"]["R1"] < 0.05


def test_a_search_from_the_command_line(place, pictures):
    command = [sys.executable, "-m", "aima_jax.cli", "search", "gender=female,upper_color=red"]
    flags = ["--workdir=runs/synthetic", f"--images={pictures}", "--out=ranking.png"]
    done = subprocess.run([*command, *flags], cwd=place, capture_output=True, text=True, check=True)
    assert len(re.findall(r"^ *\d+ +-?0\.\d+ +[abcd]\.jpg$", done.stdout, re.MULTILINE)) == 4
    assert (place / "ranking.png").stat().st_size > 10_000


def test_the_readme_in_python(place, pictures, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (pictures / "runs").symlink_to(place / "runs")
    monkeypatch.chdir(pictures)
    exec(code, {})
