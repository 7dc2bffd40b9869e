"""What a notebook needs: an import without side effects, and the notebook itself."""

import json
import pathlib
import subprocess
import sys

from samples import picture

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_importing_parses_no_flags_and_touches_no_device():
    code = """
import sys
import aima_jax
assert aima_jax.__version__ and callable(aima_jax.load)
assert "jax" not in sys.modules
import aima_jax.search
from absl import flags
from jax._src import xla_bridge
assert not flags.FLAGS.is_parsed()
assert not xla_bridge.backends_are_initialized()
assert "tensorflow" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_notebook_runs(workdir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "synthetic").symlink_to(workdir)
    (tmp_path / "photos").mkdir()
    for seed in range(12):
        picture(seed).save(tmp_path / "photos" / f"{seed}.jpg")
    notebook = json.loads((ROOT / "notebooks" / "search.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in code)  # they would hold pictures
    cells = [cell for cell in code if "setup" not in cell["metadata"].get("tags", [])]
    assert len(cells) >= 5
    names = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert names["features"].shape == (12, 64)
    assert (tmp_path / "gallery" / "gallery.json").exists()
