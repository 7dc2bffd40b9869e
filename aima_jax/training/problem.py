"""What is trained on what: a training split with its categories, and one to validate on."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Int32
from ml_collections import ConfigDict

from aima_jax.data import Split, categories, has_split, hold_out_categories, load_split
from aima_jax.text import PromptTemplate, TextTable, Variation, build_text_table


@dataclasses.dataclass(frozen=True)
class Problem:
    """The training split, the category of each of its images, and sentences for each category."""

    train: Split
    category: Int32[np.ndarray, "images"]
    table: TextTable
    template: PromptTemplate
    validation: Split | None


def load_problem(config: ConfigDict, folder: pathlib.Path) -> Problem:
    """Reads a prepared dataset as the config wants it.

    Raises:
        ValueError: a split is empty or smaller than a batch, or a sentence is too long.
    """
    train = load_split(folder, "train")
    validation = None
    if config.selection == "test":
        validation = load_split(folder, "test")
    elif config.validation_categories:
        train, validation = hold_out_categories(
            train, config.validation_categories, seed=config.seed
        )
    elif config.selection == "validation" and has_split(folder, "val"):
        validation = load_split(folder, "val")
    if len(train) < config.batch_size:
        raise ValueError(
            f"the training split of {config.dataset} has {len(train)} images, fewer than "
            f"config.batch_size={config.batch_size}"
        )
    attributes, category = categories(train.attributes)
    template = PromptTemplate(train.schema, config.template, train.wording)
    shares = config.sentences
    table = build_text_table(
        attributes,
        template,
        variants=shares.variants,
        variation=Variation(**{f.name: shares[f.name] for f in dataclasses.fields(Variation)}),
        seed=config.seed,
    )
    return Problem(train, category, table, template, validation)
