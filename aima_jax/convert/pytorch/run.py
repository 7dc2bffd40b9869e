"""A submission to the UPAR Challenge 2027, task 2: rank a gallery with the model beside it."""

import functools
import itertools
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor

import torch
from aima_clip import load, read_image  # pyright: ignore[reportMissingImports]

BATCH = 128


@functools.cache
def the_model():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load(pathlib.Path(__file__).parent / "model.safetensors").to(device)


def rank_gallery(sample):
    """Return 1 - cosine of each query and image as "distances"; smaller is better.

    `sample` has "gallery", a list of {"image_path": …}, "queries", rows of 0 and 1, and
    "attribute_names", the names of the rows' columns, in any order.
    """
    model = the_model()
    place = {name: column for column, name in enumerate(sample["attribute_names"])}
    columns = [place[name] for name in model.config["columns"]]
    texts = [model.sentence([int(row[column]) for column in columns]) for row in sample["queries"]]
    queries = [model.encode_texts(part) for part in batches(texts)]

    def read(image):
        return read_image(image["image_path"], model.image_size)

    images = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part in batches(sample["gallery"]):
            images.append(model.encode_images(pool.map(read, part)))
    return {"distances": (1 - torch.cat(queries) @ torch.cat(images).T).cpu()}


def batches(items):
    items = iter(items)
    while batch := list(itertools.islice(items, BATCH)):
        yield batch
