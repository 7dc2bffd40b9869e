"""A workdir belongs to one config and one process."""

import json
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
    with pytest.raises(ValueError, match=r"batch_size: 32 there, 3 now\n.*temperature: 0\.02"):
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


def test_a_folder_without_config_is_no_workdir(tmp_path):
    with pytest.raises(FileNotFoundError, match="no workdir"):
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
    assert "another process works in" in refused.stderr
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_a_file_is_no_workdir(tmp_path):
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
