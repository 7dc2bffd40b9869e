"""The text side of a dataset: the tokens of every category's sentences, built once."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int8, Int32, UInt8

from aima_jax.attributes import Description
from aima_jax.text.template import TEMPLATES, PromptTemplate, Sentence
from aima_jax.text.tokenizer import CONTEXT_LENGTH, END_TOKEN, encode, tokenize

_LENGTH_MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class TextTable:
    """One row for each category, and in it one sentence for each variant, to be gathered by number.

    Attributes:
        tokens: of each sentence; variant 0 is the whole description by the run's template.
        phrase_ids: which phrase of the sentence a token is part of, from 0 in the order of the
            text; -1 for none.
        said: what the sentence says of each bit, as `AttributeSchema.said` gives it.
        whole: whether the sentence says all.
        attributes: bits of each category.
        presences: which bits say that something is there; see `AttributeSchema`.
        sentences: variant 0 in words.
    """

    tokens: Int32[np.ndarray, "category variant tokens"]
    phrase_ids: Int32[np.ndarray, "category variant tokens"]
    said: Int8[np.ndarray, "category variant attributes"]
    whole: Bool[np.ndarray, "category variant"]
    attributes: UInt8[np.ndarray, "category attributes"]
    presences: Bool[np.ndarray, "attributes"]
    sentences: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Variation:
    """How the sentences beyond the first differ from it: the chance of each, on its own. [ours]

    Attributes:
        partial: some of the groups are said, at least one, and the others left out.
        absences: what is absent is stated.
        templates: another template is drawn.
        synonyms: words are replaced by the wording's synonyms.
        order: clauses and things come in another order.
    """

    partial: float = 0.0
    absences: float = 0.0
    templates: float = 0.0
    synonyms: float = 0.0
    order: float = 0.0


def build_text_table(
    attributes: UInt8[np.ndarray, "category attributes"],
    template: PromptTemplate,
    *,
    variants: int = 1,
    variation: Variation | None = None,
    seed: int = 0,
) -> TextTable:
    """Return the tokens of every category's sentences, as wide as the longest, rounded up to 8.

    Args:
        attributes: bits of each category.
        template: of variant 0, and of the others where `variation` does not draw another one.
        variants: sentences for each category; those from 1 on depend on (seed, category, variant).
        variation: of the sentences from 1 on.

    Raises:
        ValueError: there are no categories, bits that the schema does not have, or a sentence of
            more than 77 tokens, start and end included.
    """
    attributes = np.asarray(attributes)
    if attributes.ndim != 2 or not len(attributes):
        raise ValueError(
            f"attributes have shape {attributes.shape}; expected one row of "
            f"{template.schema.size} bits for each category"
        )
    variation = variation or Variation()
    sentences = [
        template.render(bits)
        if variant == 0
        else _vary(bits, template, variation, np.random.default_rng((seed, category, variant)))
        for category, bits in enumerate(attributes)
        for variant in range(variants)
    ]
    tokens = tokenize([sentence.text for sentence in sentences])
    phrase_ids = np.full_like(tokens, -1)
    for row, sentence in enumerate(sentences):
        ids = _phrase_ids(sentence)
        phrase_ids[row, 1 : 1 + len(ids)] = ids  # behind the start token

    longest = (tokens == END_TOKEN).argmax(axis=1).max() + 1
    width = min(-(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE, CONTEXT_LENGTH)
    shape = (len(attributes), variants)
    said = np.stack([sentence.said for sentence in sentences])
    return TextTable(
        tokens=tokens[:, :width].reshape(*shape, width),
        phrase_ids=phrase_ids[:, :width].reshape(*shape, width),
        said=said.reshape(*shape, -1),
        whole=(said != 0).all(axis=1).reshape(shape),
        attributes=attributes.astype(np.uint8),
        presences=template.schema.presences,
        sentences=tuple(sentence.text for sentence in sentences[::variants]),
    )


def _vary(
    bits: UInt8[np.ndarray, "attributes"],
    template: PromptTemplate,
    variation: Variation,
    generator: np.random.Generator,
) -> Sentence:
    """A sentence about a category that says some of it, or all in other words.

    The template's own sentence where the other would be too long.
    """
    partial, absences, templates, synonyms, order = (
        bool(generator.random() < chance) for chance in dataclasses.astuple(variation)
    )
    name = str(generator.choice(TEMPLATES)) if templates else template.name
    if absences and not partial:
        name = "absence"
    wording = template.wording
    if synonyms:
        wording = wording.with_synonyms(generator)
    if order:
        wording = wording.reordered(generator)
    varied = PromptTemplate(template.schema, name, wording)
    description = bits
    if partial:
        description = draw_partial(template.schema.decode(bits), varied, generator, absences)
    sentence = varied.render(description)
    fits = len(encode(sentence.text)) + 2 <= CONTEXT_LENGTH
    return sentence if fits else template.render(bits)


def draw_partial(
    description: Description,
    template: PromptTemplate,
    generator: np.random.Generator,
    absences: bool,
) -> Description:
    """Draw some groups of a whole description, at least one.

    What is absent is drawn with `absences` alone, and if the wording lists words for it.
    """
    schema = template.schema
    names = [
        name
        for name, value in description.items()
        if any(schema.group(name).statements(value).values())
        or (absences and name in template.wording.absences)
    ] or list(description)
    count = int(generator.integers(1, len(names) + 1))
    chosen = {names[place] for place in generator.choice(len(names), count, replace=False)}
    return {name: value for name, value in description.items() if name in chosen}


def _phrase_ids(sentence: Sentence) -> list[int]:
    """Return the phrase of every token, without start and end token.

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
