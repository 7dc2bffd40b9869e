"""Splits of grey pictures in memory, and batches of them."""

import io
import time

import numpy as np
from PIL import Image

from aima_jax.attributes import AttributeSchema, Group
from aima_jax.data import Split, TrainBatches
from aima_jax.text.grammar import NounPhrase, Wording

SIZE = (4, 2)


def grey(value):
    data = io.BytesIO()
    Image.new("L", (3, 5), value).save(data, "PNG")
    return data.getvalue()


def make_split(count, pictures=None):
    """A split in memory; picture i is grey of value i."""
    return Split(
        dataset="greys",
        split="train",
        schema=AttributeSchema("greys", (Group("dark", "flag"),)),
        wording=Wording({}, NounPhrase(), (), (), {}),
        traits={},
        attributes=np.zeros((count, 1), np.uint8),
        identity=np.full(count, -1, np.int32),
        camera=np.full(count, -1, np.int32),
        filename=np.array([f"greys/{i}.png" for i in range(count)]),
        checksum="",
        _pictures=pictures or [grey(i) for i in range(count)],
        _records=np.arange(count),
    )


class Reads:
    """Pictures that keep a list of which were read, and take their time."""

    def __init__(self, count, seconds=0.0, bad=()):
        self.pictures = [b"damaged" if i in bad else grey(i) for i in range(count)]
        self.seconds = seconds
        self.read = []

    def __getitem__(self, index):
        time.sleep(self.seconds)
        self.read.append(index)
        return self.pictures[index]


def batches(count=53, *, split=None, **changes):
    options = {"batch_size": 12, "image_size": SIZE, "seed": 5, "epochs": 3} | changes
    return TrainBatches(split or make_split(count), 100 + np.arange(count), **options)
