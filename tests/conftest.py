"""Eight CPU devices for every test, and the shared data where it is there."""

import os
import pathlib

import pytest

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real labels and crops, `AIMA_TEST_DATA` or `../shared/data`."""
    folder = pathlib.Path(os.environ.get("AIMA_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data in {folder}: set AIMA_TEST_DATA")
    return folder
