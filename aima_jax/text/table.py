"""The text side of a dataset: the tokens of every category's sentences, computed once."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int8, Int32, UInt8

from aima_jax.attributes import Description
from aima_jax.text.template import TEMPLATES, PromptTemplate, Sentence
from aima_jax.text.tokenizer import CONTEXT_LENGTH, END_TOKEN, encode, tokenize

_LENGTH_MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class TextTable:
    """The tokenized sentences of each category: one row per category, one sentence per variant.

    Attributes:
        tokens: of each sentence; variant 0 is the whole description in the run's template.
        phrase_ids: for each token the number of its phrase, from 0 in text order; -1 for none.
        said: what the sentence states about each bit, as returned by `AttributeSchema.said`.
        whole: whether the sentence states everything.
        attributes: bits of each category.
        presences: which bits state a presence; see `AttributeSchema`.
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
    """Independent probabilities of how further sentences differ from the first. [ours]

    Attributes:
        partial: only some groups, at least one, are mentioned.
        absences: absences are stated.
        templates: another template is drawn.
        synonyms: words are replaced by the wording's synonyms.
        order: clauses and things are reordered.
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
    """Return the tokens of every category's sentences, padded to the longest, rounded up to 8.

    Args:
        attributes: bits of each category.
        template: of variant 0, and of the others unless `variation` draws another one.
        variants: sentences per category; from 1 on they depend on (seed, category, variant).
        variation: of the sentences from 1 on.

    Raises:
        ValueError: there are no categories, the bits do not match the schema, or a sentence has
            more than 77 tokens with start and end tokens.
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
        phrase_ids[row, 1 : 1 + len(ids)] = ids  # after the start token

    width = table_width(tokens)
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


def table_width(tokens: Int32[np.ndarray, "sentences tokens"]) -> int:
    """Return the length of the longest sentence, rounded up to 8, at most 77."""
    longest = int((tokens == END_TOKEN).argmax(axis=1).max()) + 1
    return min(-(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE, CONTEXT_LENGTH)


def _vary(
    bits: UInt8[np.ndarray, "attributes"],
    template: PromptTemplate,
    variation: Variation,
    generator: np.random.Generator,
) -> Sentence:
    """A sentence about a category that is partial, or complete in other words.

    If it would be too long, the template's own sentence.
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
    """Draw some groups of a complete description, at least one.

    Absences are drawn only with `absences`, and only if the wording has words for them.
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

    A phrase is delimited by spaces and punctuation, which no token crosses: its tokens can be
    counted separately.
    """
    ids = []
    position = 0
    for index, phrase in enumerate(sentence.phrases):
        ids += [-1] * len(encode(sentence.text[position : phrase.start]))
        ids += [index] * len(encode(sentence.text[phrase.start : phrase.end]))
        position = phrase.end
    return ids
