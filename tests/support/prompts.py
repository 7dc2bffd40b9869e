"""The schemas and wordings of the datasets, and real categories to be put into words."""

import functools

import label_files
import numpy as np
import pytest

from aima_jax.attributes import AttributeSchema
from aima_jax.text import TEMPLATES, PromptTemplate
from tfds_builders.market1501_attribute import wording as market1501
from tfds_builders.market1501_attribute.schema import SCHEMA as market1501_schema
from tfds_builders.pa100k import wording as pa100k
from tfds_builders.pa100k.schema import SCHEMA as pa100k_schema
from tfds_builders.peta import wording as peta
from tfds_builders.peta.schema import SCHEMA as peta_schema
from tfds_builders.peta.schema import SCHEMA_35 as peta35_schema
from tfds_builders.synthetic_pedestrians import wording as synthetic
from tfds_builders.synthetic_pedestrians.schema import SCHEMA as synthetic_schema

REAL_SCHEMAS = (market1501_schema, peta_schema, peta35_schema, pa100k_schema)
SCHEMAS = (*REAL_SCHEMAS, synthetic_schema)
WORDINGS = {
    "market1501": market1501.WORDING,
    "peta": peta.WORDING,
    "peta35": peta.WORDING,
    "pa100k": pa100k.WORDING,
    "synthetic": synthetic.WORDING,
}
each_name = pytest.mark.parametrize("name", TEMPLATES)
each_schema = pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)


def prompts(schema: AttributeSchema, name: str = "sentence") -> PromptTemplate:
    return PromptTemplate(schema, name, WORDINGS[schema.name])


def categories(request, schema: AttributeSchema) -> np.ndarray:
    if schema is synthetic_schema:
        return synthetic_categories()
    return label_files.categories(request.getfixturevalue("shared_data"), schema)


@functools.cache
def synthetic_categories() -> np.ndarray:
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(1000):
        description = {
            group.name: bool(generator.integers(2))
            if group.kind == "flag"
            else str(generator.choice(group.answers))
            for group in synthetic_schema.groups
        }
        rows.append(synthetic_schema.encode(description))
    return np.unique(rows, axis=0)
