"""What can be said of a person: attribute schemas, their bit vectors, and the IoU between them."""

from aima_jax.attributes.market1501 import market1501_schema
from aima_jax.attributes.pa100k import pa100k_schema
from aima_jax.attributes.peta import peta35_schema, peta_schema
from aima_jax.attributes.schema import AttributeSchema, Description, Group, attribute_iou
from aima_jax.attributes.synthetic import synthetic_schema

__all__ = [
    "AttributeSchema",
    "Description",
    "Group",
    "attribute_iou",
    "market1501_schema",
    "pa100k_schema",
    "peta35_schema",
    "peta_schema",
    "synthetic_schema",
]
