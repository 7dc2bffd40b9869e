"""Attributes in words and tokens: prompt templates, CLIP's BPE tokenizer, a text table."""

from aima_jax.text.grammar import Clause, NounPhrase, Wording, things
from aima_jax.text.table import TextTable, Variation, build_text_table
from aima_jax.text.template import TEMPLATES, Phrase, PromptTemplate, Sentence
from aima_jax.text.tokenizer import tokenize

__all__ = [
    "TEMPLATES",
    "Clause",
    "NounPhrase",
    "Phrase",
    "PromptTemplate",
    "Sentence",
    "TextTable",
    "Variation",
    "Wording",
    "build_text_table",
    "things",
    "tokenize",
]
