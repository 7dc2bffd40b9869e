"""What is prepared, and where to."""

import pytest
from stand_ins import small_pa100k


@pytest.fixture
def raw(tmp_path):
    """A small PA-100K."""
    return small_pa100k(tmp_path / "raw")


@pytest.fixture
def data(tmp_path):
    """A place for prepared datasets; it does not exist yet."""
    return tmp_path / "data"
