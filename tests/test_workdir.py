"""A workdir belongs to one config and one process."""

import json
import os
import subprocess
import sys

import pytest

from aima_jax import workdir
from configs import synthetic


def test_the_same_config_is_accepted_again(tmp_path):
    workdir.write_config(tmp_path, synthetic.get_config())
    workdir.write_config(tmp_path, synthetic.get_config())
    assert workdir.as_json(workdir.read_config(tmp_path)) == workdir.as_json(synthetic.get_config())


def test_another_config_is_refused_with_the_fields_that_differ(tmp_path):
    workdir.write_config(tmp_path, synthetic.get_config())
    workdir.record_start(tmp_path)
    other = synthetic.get_config()
    other.batch_size = 3
    other.loss.temperature = 0.5
    with pytest.raises(ValueError, match=r"batch_size: 32 there, 3 now\n.*temperature: 0\.05"):
        workdir.write_config(tmp_path, other)
    assert workdir.read_config(tmp_path).batch_size == 32


def test_places_and_protocols_may_differ(tmp_path):
    workdir.write_config(tmp_path, synthetic.get_config())
    other = synthetic.get_config()
    other.data_dir = "/elsewhere"
    other.mesh.fsdp = 2
    other.protocols = ("sal",)
    workdir.write_config(tmp_path, other)
    assert list(workdir.read_config(tmp_path).protocols) == ["sal"]


def test_a_start_that_failed_binds_nobody(tmp_path):
    workdir.write_config(tmp_path, synthetic.get_config())
    other = synthetic.get_config()
    other.weights = "corrected"
    workdir.write_config(tmp_path, other)
    assert workdir.read_config(tmp_path).weights == "corrected"


def test_a_folder_without_config_is_not_a_workdir(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a workdir"):
        workdir.read_config(tmp_path)


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"batch_size": ')
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        workdir.read_config(tmp_path)


def test_a_second_process_is_refused(tmp_path):
    code = (
        "import pathlib, sys\nfrom aima_jax.workdir import lock_workdir\n"
        "with lock_workdir(pathlib.Path(sys.argv[1])): pass"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with workdir.lock_workdir(tmp_path):
        refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "another process is using" in refused.stderr
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_a_file_is_not_a_workdir(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"), workdir.lock_workdir(tmp_path / "file"):
        pass


def test_the_record_names_what_a_run_was_made_of(tmp_path):
    workdir.record_start(tmp_path, first_step=0)
    workdir.record_start(tmp_path, first_step=7)
    starts = json.loads((tmp_path / "environment.json").read_text())
    assert [start["first_step"] for start in starts] == [0, 7]
    assert starts[0]["packages"]["jax"]
    assert starts[0]["devices"]


def git(folder, *arguments):
    names = {
        f"GIT_{role}_{what}": "a" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    command = ["git", "-C", str(folder), *arguments]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | names)


@pytest.mark.parametrize("own", [True, False])
def test_a_commit_is_that_of_our_own_repository(tmp_path, monkeypatch, own):
    """Not that of a project in whose folder we are installed."""
    package = tmp_path / ("aima_jax" if own else "venv/site-packages/aima_jax")
    package.mkdir(parents=True)
    (package / "workdir.py").touch()
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "x")
    monkeypatch.setattr(workdir, "__file__", str(package / "workdir.py"))
    assert (workdir._git_commit() is not None) == own


def test_a_copy_within_another_repository_has_no_commit(tmp_path, monkeypatch):
    """As installed with `pip install --target=.` at the top of a project."""
    git(tmp_path, "init")
    (tmp_path / "README").touch()
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "x")
    (tmp_path / "aima_jax").mkdir()
    (tmp_path / "aima_jax" / "workdir.py").touch()
    monkeypatch.setattr(workdir, "__file__", str(tmp_path / "aima_jax" / "workdir.py"))
    assert workdir._git_commit() is None
