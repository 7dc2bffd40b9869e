"""Mask whole attribute phrases of sentences, for masked attribute prediction."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int32, PRNGKeyArray

from aima_jax.text.tokenizer import MASK_TOKEN

# Shares of the chosen phrases that become the mask token and random words; the rest is unchanged.
MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1
MASKING_OPTIONS = ("mask_rate", "mask_capacity")  # fields of the config that `mask_phrases` takes


def attribute_words(
    tokens: Int32[np.ndarray, "*sentences tokens"],
    phrase_ids: Int32[np.ndarray, "*sentences tokens"],
) -> Int32[np.ndarray, "words"]:
    """Return the distinct tokens that are part of a phrase, in ascending order."""
    return np.unique(tokens[phrase_ids >= 0]).astype(np.int32)


def mask_phrases(
    key: PRNGKeyArray,
    tokens: Int[Array, "batch tokens"],
    phrase_ids: Int[Array, "batch tokens"],
    *,
    mask_rate: float,
    mask_capacity: int,
    attribute_words: Int[Array | np.ndarray, "words"],
) -> tuple[
    Int[Array, "batch tokens"],
    Int32[Array, "batch k"],
    Int[Array, "batch k"],
    Bool[Array, "batch k"],
]:
    """Mask some phrases of each sentence: (masked tokens, positions, targets, mask).

    Each phrase is chosen with probability `mask_rate`, but at least one per sentence. All tokens of
    a chosen phrase become the mask token (80 %), become random `attribute_words` (10 %) or are
    unchanged (10 %). The rates are BERT's, as in IRRA; masking whole phrases is our decision.

    At most k = `mask_capacity` tokens of a sentence are chosen: chosen phrases are admitted in
    random order until one does not fit. Phrases of more than k tokens are never chosen. A sentence
    without phrases is unchanged. The masking of row i depends on `key` and i alone.

    Args:
        key: random key.
        tokens: sentences.
        phrase_ids: for each token the number of its phrase in the sentence, from 0; -1 for none.
        mask_rate: probability from 0 to 1.
        mask_capacity: maximum number of tokens chosen in a sentence.
        attribute_words: tokens to draw replacements from.

    Returns:
        masked_tokens: the model's input.
        positions: of the chosen tokens, ascending, padded with 0.
        targets: `tokens` at `positions`.
        mask: True where `positions` is a chosen token.

    Raises:
        ValueError: `attribute_words` is empty, or `mask_capacity` is below 1.
    """
    if len(attribute_words) == 0:
        raise ValueError("attribute_words is empty; expected the tokens of at least one phrase")
    if mask_capacity < 1:
        raise ValueError(f"mask_capacity is {mask_capacity}; expected at least 1 token")

    attribute_words = jnp.asarray(attribute_words, tokens.dtype)

    def mask_row(row: Array, tokens: Array, phrase_ids: Array) -> tuple[Array, Array, Array, Array]:
        choice_key, fate_key, word_key = jax.random.split(jax.random.fold_in(key, row), 3)
        member = phrase_ids == jnp.arange(len(tokens))[:, None]  # [phrases, tokens]
        chosen = _choose(choice_key, jnp.sum(member, axis=-1), mask_rate, mask_capacity)
        fate = jax.random.uniform(fate_key, chosen.shape)
        words = jax.random.choice(word_key, attribute_words, tokens.shape)

        def tokens_of(phrases: Array) -> Array:
            return jnp.any(member & phrases[:, None], axis=0)

        counts = tokens_of(chosen)
        hidden = tokens_of(chosen & (fate < MASKED_SHARE))
        stays = tokens_of(chosen & (fate >= MASKED_SHARE + RANDOM_SHARE))
        masked = jnp.where(hidden, MASK_TOKEN, jnp.where(counts & ~stays, words, tokens))
        (positions,) = jnp.nonzero(counts, size=mask_capacity, fill_value=0)
        mask = jnp.arange(mask_capacity) < jnp.sum(counts)
        return masked, positions.astype(jnp.int32), tokens[positions], mask

    return jax.vmap(mask_row)(jnp.arange(len(tokens)), tokens, phrase_ids)


def _choose(
    key: PRNGKeyArray, size: Int[Array, "phrases"], mask_rate: float, capacity: int
) -> Bool[Array, "phrases"]:
    """Choose phrases, given their numbers of tokens; phrases of 0 tokens do not exist."""
    draw = jax.random.uniform(key, size.shape)
    draw = jnp.where((size > 0) & (size <= capacity), draw, jnp.inf)
    chosen = (draw < mask_rate) | ((draw == jnp.min(draw)) & jnp.isfinite(draw))
    # The draws do not depend on the phrases' positions, so their order serves for admission too.
    up_to_here = jnp.sum(jnp.where(chosen & (draw <= draw[:, None]), size, 0), axis=-1)
    return chosen & (up_to_here <= capacity)
