"""The text side of a dataset: the tokens of every category's sentence, built once."""

import dataclasses

import numpy as np
from jaxtyping import Int32, UInt8

from aima_jax.text.template import PromptTemplate, Sentence
from aima_jax.text.tokenizer import CONTEXT_LENGTH, END_TOKEN, encode, tokenize

_LENGTH_MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class TextTable:
    """One row for each category, to be gathered by the category's number.

    `phrase_ids` tells which phrase of the sentence a token is part of, counted from 0 in the order
    of the text; -1 for none.
    """

    tokens: Int32[np.ndarray, "category tokens"]
    phrase_ids: Int32[np.ndarray, "category tokens"]
    attributes: UInt8[np.ndarray, "category attributes"]
    sentences: tuple[str, ...]


def build_text_table(
    attributes: UInt8[np.ndarray, "category attributes"], template: PromptTemplate
) -> TextTable:
    """Returns the tokens of every category's sentence, as wide as the longest, rounded up to 8.

    Raises ValueError where there are no categories, for bits that the schema does not have, and for
    a sentence of more than 77 tokens, start and end included.
    """
    attributes = np.asarray(attributes)
    if attributes.ndim != 2 or not len(attributes):
        raise ValueError(
            f"attributes have shape {attributes.shape}; expected one row of "
            f"{template.schema.size} bits for each category"
        )
    sentences = [template.render(bits) for bits in attributes]
    tokens = tokenize([sentence.text for sentence in sentences])
    phrase_ids = np.full_like(tokens, -1)
    for row, sentence in enumerate(sentences):
        ids = _phrase_ids(sentence)
        phrase_ids[row, 1 : 1 + len(ids)] = ids  # behind the start token

    longest = (tokens == END_TOKEN).argmax(axis=1).max() + 1
    width = min(-(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE, CONTEXT_LENGTH)
    return TextTable(
        tokens[:, :width],
        phrase_ids[:, :width],
        attributes.astype(np.uint8),
        tuple(sentence.text for sentence in sentences),
    )


def _phrase_ids(sentence: Sentence) -> list[int]:
    """Returns the phrase of every token, without start and end token.

    A phrase borders on spaces and signs alone, at which no token reaches across: it can be counted
    on its own.
    """
    ids = []
    position = 0
    for index, phrase in enumerate(sentence.phrases):
        ids += [-1] * len(encode(sentence.text[position : phrase.start]))
        ids += [index] * len(encode(sentence.text[phrase.start : phrase.end]))
        position = phrase.end
    return ids
