"""The multimodal encoder, its head and the classifier against PyTorch's own layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aima_jax.convert import load_irra
from aima_jax.models import text_mask
from aima_jax.sharding import make_mesh

torch = pytest.importorskip("torch", reason="parity with PyTorch needs PyTorch")
from openai_reference import small_irra  # noqa: E402

TOKENS = np.zeros((3, 12), np.int32)
for row, length in enumerate((4, 9, 12)):
    TOKENS[row, :length] = 7 + np.arange(length)
    TOKENS[row, length - 1] = 49407


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The same two-headed model in PyTorch and here."""
    theirs = small_irra(dim=128)
    path = tmp_path_factory.mktemp("irra") / "best.pth"
    torch.save({"model": theirs.state_dict(), "epoch": 3}, path)
    _, ours = load_irra(path, image_size=(32, 16), mesh=make_mesh(devices=jax.devices()[:1]))
    return ours, theirs


def assert_close(ours, theirs, tolerance=1e-5):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def test_every_stage_from_pixels_to_words_equals_pytorch(pair):
    ours, theirs = pair
    images = np.random.default_rng(0).normal(size=(3, 32, 16, 3)).astype(np.float32)
    mask = TOKENS > 0

    @nnx.jit
    def stages(model):
        tokens = jnp.asarray(TOKENS)
        image_features, image_tokens = model.encode_image(jnp.asarray(images))
        text_features, text_tokens = model.encode_text(tokens)
        hidden = model.fuse(text_tokens, image_tokens, text_mask(tokens))
        words = model.predict_masked(hidden[:, :2])
        return (
            image_tokens,
            text_tokens,
            text_features,
            hidden,
            words,
            model.classify(image_features),
        )

    image, text, features, hidden, words, categories = stages(ours)
    with torch.no_grad():
        their_image = theirs.base_model.visual(torch.tensor(images).permute(0, 3, 1, 2))
        their_text = theirs.base_model.encode_text(torch.tensor(TOKENS))
        assert_close(image, their_image)
        assert_close(text, their_text)
        ends = mask.sum(axis=1) - 1
        assert_close(features, their_text[torch.arange(3), torch.tensor(ends)])
        their_hidden = theirs.fuse(their_text, their_image, torch.tensor(mask))
        for row, length in enumerate(mask.sum(axis=1)):  # what padding becomes does not matter
            assert_close(hidden[row, :length], their_hidden[row, :length])
        assert_close(words, theirs.mlm_head(their_hidden[:, :2]))
        assert_close(categories, theirs.classifier(their_image[:, 0]))


def test_padding_takes_no_part(pair):
    ours, _ = pair
    generator = np.random.default_rng(1)
    image = generator.normal(size=(3, 9, 128)).astype(np.float32)
    text = generator.normal(size=(3, 12, 128)).astype(np.float32)
    mask = np.asarray(text_mask(jnp.asarray(TOKENS)))
    noise = np.where(mask[..., None], text, generator.normal(size=text.shape)).astype(np.float32)
    fuse = nnx.jit(lambda model, text: model.fuse(text, jnp.asarray(image), jnp.asarray(mask)))
    before, after = fuse(ours, text), fuse(ours, noise)
    assert np.array_equal(before[mask], after[mask])
    assert not np.allclose(before[~mask], after[~mask])


def test_the_mask_ends_with_the_first_end_of_text():
    tokens = np.array([[49406, 5, 49407, 49407, 9], [49406, 5, 6, 7, 49407], [49406, 1, 2, 3, 4]])
    expected = [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert np.array_equal(text_mask(jnp.asarray(tokens)), np.array(expected, bool))
