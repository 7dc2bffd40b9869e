"""Which sentences of a batch say something true of which images, and what follows for the losses.

A whole sentence is true of the images of its category. A partial one is true of an image unless it
says something that is otherwise there: a_ij, the agreement of image i with sentence j. [ours]
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8, Shaped

from aima_jax.attributes import agreement
from aima_jax.chunks import Constants, Operands

# Of each item: bits of the image, what the sentence says of each bit, whether it says all.
Said = tuple[
    Shaped[Array, "batch attributes"], Int8[Array, "batch attributes"], Bool[Array, "batch"]
]


def target_inputs(
    labels: Int[Array, "batch"], said: Said | None, *, chunk_size: int | None = None
) -> Constants:
    """What `targets` has to know of each item of a batch.

    With `said`, that is also n_j = Σ_i a_ij, the number of images of which sentence j is true. Of
    `chunk_size` sentences at once, where it is given.
    """
    labels = jnp.asarray(labels)
    if said is None:
        return (labels,)
    attributes, says, whole = map(jnp.asarray, said)

    def count(sentence: tuple[Array, Array, Array]) -> Array:
        sentences = jax.tree.map(lambda x: x[None], sentence)
        return jnp.sum(_agrees((labels, attributes), sentences))

    sentences = labels, says, whole
    if chunk_size is None:
        counts = jax.vmap(count)(sentences)
    else:
        counts = jax.lax.map(count, sentences, batch_size=max(1, min(chunk_size, len(labels))))
    return labels, attributes, says, whole, counts


def targets(
    rows: Operands, everything: Operands, *, image_target: str = "joint"
) -> tuple[Float[Array, "rows batch"], Float[Array, "rows batch"]]:
    """q of each row over the whole batch, image→text and text→image.

    By labels alone both are y_ij / Σ_j y_ij for y_ij = [label_i = label_j]. By agreement they are
    the conditionals of one joint, P_ij = a_ij / n_j: a sentence that is true of many images weighs
    little beside one that is true of few. Text→image is q(i|j) = P_ij, image→text is
    q(j|i) = P_ij / Σ_j P_ij, or a_ij / Σ_j a_ij with `image_target="uniform"`.

    Args:
        rows, everything: some of the rows and the whole batch, with constants from `target_inputs`.
    """
    (features, *_), constants = rows
    _, all_constants = everything
    if len(constants) == 1:
        same = (constants[0][:, None] == all_constants[0][None, :]).astype(features.dtype)
        q = same / jnp.sum(same, axis=-1, keepdims=True)
        return q, q
    labels, attributes, said, whole, counts = constants
    all_labels, all_attributes, all_said, all_whole, all_counts = all_constants
    of_images = _agrees((labels, attributes), (all_labels, all_said, all_whole))
    of_texts = _agrees((all_labels, all_attributes), (labels, said, whole)).T
    weights = of_images.astype(features.dtype)
    if image_target == "joint":
        weights /= all_counts[None, :]
    image_to_text = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return image_to_text, of_texts.astype(features.dtype) / counts[:, None]


def statements(
    attributes: Shaped[Array, "batch attributes"],
    said: Int8[Array, "batch attributes"],
    whole: Bool[Array, "batch"],
    presences: Bool[Array, "batch attributes"] | None = None,
) -> Bool[Array, "batch statements"]:
    """Statements of each sentence as a set of (bit, sign): what holds, then what does not.

    A whole sentence states what holds in its category, whatever its words. Bits that say an
    absence, all but `presences`, are left out.
    """
    whole = jnp.asarray(whole)[:, None]
    counted = True if presences is None else jnp.asarray(presences)
    holds = jnp.where(whole, jnp.asarray(attributes) != 0, said == 1)
    return jnp.concatenate([holds & counted, (said == -1) & ~whole & counted], axis=1)


def _agrees(
    images: tuple[Array, Array], sentences: tuple[Array, Array, Array]
) -> Bool[Array, "images sentences"]:
    """a_ij, by labels and bits of images, and labels, statements and wholeness of sentences."""
    labels, attributes = images
    sentence_labels, said, whole = sentences
    same = labels[:, None] == sentence_labels[None, :]
    return jnp.where(whole[None, :], same, agreement(attributes, said))
