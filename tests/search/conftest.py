"""A run to search with, and a folder to search in."""

import pytest
from samples import make_model, picture, save

import aima_jax


@pytest.fixture(scope="package")
def model():
    return make_model()


@pytest.fixture(scope="package")
def workdir(tmp_path_factory, model):
    return save(tmp_path_factory.mktemp("run"), model)


@pytest.fixture(scope="package")
def search(workdir):
    return aima_jax.load(workdir)


@pytest.fixture
def folder(tmp_path):
    """Five pictures, one of them in a folder of its own, and two files that are no pictures."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for seed, name in enumerate(["b.png", "a.jpg", "c.JPG", "more/a.png", "d.png"]):
        picture(seed).save(folder / name)
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:200])
    (folder / "Thumbs.db").write_bytes(b"no picture, and not taken for one")
    return folder
