"""The real label files as bit vectors of our schemas."""

import functools
import pathlib

import numpy as np
import scipy.io

from aima_jax.attributes import AttributeSchema
from tfds_builders.market1501_attribute.schema import FIELDS
from tfds_builders.market1501_attribute.schema import SCHEMA as market1501_schema


@functools.cache
def market1501(shared_data: pathlib.Path) -> dict[str, np.ndarray]:
    """Bits of each identity, by split."""
    file = shared_data / "annotations/market1501/market_attribute.mat"
    halves = scipy.io.loadmat(file)["market_attribute"][0, 0]
    splits = {}
    for split in ("train", "test"):
        codes = halves[split][0, 0]
        bits = np.zeros((codes["image_index"].size, market1501_schema.size), np.uint8)
        for field, names in FIELDS.items():
            for row, code in enumerate(codes[field].ravel()):
                if names[int(code)] is not None:
                    bits[row, market1501_schema.names.index(names[int(code)])] = 1
        splits[split] = bits
    return splits


@functools.cache
def peta(shared_data: pathlib.Path) -> tuple[list[str], np.ndarray]:
    """The file's names of the columns, and the bits of each image."""
    data = scipy.io.loadmat(shared_data / "annotations/peta/PETA.mat")["peta"][0, 0]
    names = [str(name[0][0]) for name in data["attribute"]]
    return names, data["data"][:, 4:].astype(np.uint8)


@functools.cache
def pa100k(shared_data: pathlib.Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The file's names of the columns, and the bits of each image by split."""
    data = scipy.io.loadmat(shared_data / "annotations/pa100k/annotation.mat")
    names = [str(name[0][0]) for name in data["attributes"]]
    return names, {split: data[f"{split}_label"] for split in ("train", "val", "test")}


@functools.cache
def categories(shared_data: pathlib.Path, schema: AttributeSchema) -> np.ndarray:
    """Every distinct attribute vector in any split of the schema's dataset."""
    if schema.name == "market1501":
        rows = np.concatenate(list(market1501(shared_data).values()))
    elif schema.name == "pa100k":
        rows = np.concatenate(list(pa100k(shared_data)[1].values()))
    else:
        rows = peta(shared_data)[1][:, : schema.size]
    return np.unique(rows, axis=0)
