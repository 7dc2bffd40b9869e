"""Attributes in words and tokens: prompt templates, CLIP's byte pairs, a dataset's text table."""

from aima_jax.text.table import TextTable, build_text_table
from aima_jax.text.template import Phrase, PromptTemplate, Sentence
from aima_jax.text.tokenizer import tokenize

__all__ = ["Phrase", "PromptTemplate", "Sentence", "TextTable", "build_text_table", "tokenize"]
