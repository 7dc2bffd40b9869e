"""Attention in every form: the textbook formula, its gradient, and what JAX asks of cuDNN's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aima_jax.models.attention import attention, attention_by_cudnn, has_cudnn_attention
from aima_jax.platform import CPU, Platform

GPU, TPU = Platform("cuda", 9.0), Platform("tpu")
FORMS = ("whole", "causal", "lengths")
dot_product_attention = jax.nn.dot_product_attention


def stand_in_for_cudnn(query, key, value, *, implementation, **options):
    """Take what cuDNN takes, and refuses what JAX refuses to train on."""
    assert implementation == "cudnn"
    assert query.shape[1] % 2 == key.shape[1] % 2 == 0
    return dot_product_attention(query, key, value, **options)


def options(form, *, most=7):
    lengths = jnp.array([4, most]) if form == "lengths" else None
    return {"causal": form == "causal", "lengths": lengths}


def draw(count, tokens, dtype=np.float32):
    return np.random.default_rng(0).normal(size=(count, 2, tokens, 3, 4)).astype(dtype)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokens", [7, 8])
@pytest.mark.parametrize("by_cudnn", [False, True])
def test_attention_is_the_textbook_formula(by_cudnn, tokens, form, monkeypatch):
    query, key, value = draw(3, tokens, np.float64)
    exists = np.ones((2, tokens, tokens), bool)
    if form == "causal":
        exists &= np.tri(tokens, dtype=bool)
    if form == "lengths":
        exists &= np.arange(tokens) < np.array([4, tokens])[:, None, None]
    expected = np.zeros((2, tokens, 3, 4))
    for row in range(2):
        for head in range(3):
            scores = query[row, :, head] @ key[row, :, head].T / 2
            weights = np.exp(scores) * exists[row]
            weights /= weights.sum(axis=1, keepdims=True)
            expected[row, :, head] = weights @ value[row, :, head]
    compute = attention
    if by_cudnn:
        monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in_for_cudnn)
        compute = attention_by_cudnn
    arguments = [jnp.asarray(x, jnp.float32) for x in (query, key, value)]
    actual = compute(*arguments, **options(form, most=tokens))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("queries", [7, 4])
def test_a_token_added_for_cudnn_changes_no_gradient(queries, form, monkeypatch):
    query, key, value, cotangent = draw(4, 7)
    query, cotangent = query[:, :queries], cotangent[:, :queries]

    def gradients(compute):
        run = partial(compute, **options(form))
        return jax.vjp(run, query, key, value)[1](cotangent)

    expected = gradients(attention)
    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in_for_cudnn)
    for actual, reference in zip(gradients(attention_by_cudnn), expected, strict=True):
        np.testing.assert_allclose(actual, reference, rtol=1e-5, atol=1e-6)


def test_cudnn_is_taken_where_it_is(monkeypatch):
    x = jnp.zeros((2, 6, 3, 8), jnp.bfloat16)
    taken = []
    monkeypatch.setattr(
        jax.nn,
        "dot_product_attention",
        lambda *x, implementation, **_: taken.append(implementation) or x[0],
    )
    for platform in (GPU, CPU, TPU, None, Platform("gpu"), Platform("cuda", 7.5)):
        attention(x, x, x, platform=platform)
    assert taken == ["cudnn"] + 5 * ["xla"]
    assert not has_cudnn_attention(GPU, jnp.dtype("float32"), 8)
    assert not has_cudnn_attention(GPU, x.dtype, 12)


@pytest.mark.parametrize("form", FORMS)
def test_jax_refuses_to_train_odd_numbers_of_tokens_by_cudnn(form, monkeypatch):
    """Once it does not, no token has to be added."""
    fused = pytest.importorskip(
        "jax._src.cudnn.fused_attention_stablehlo", reason="the refusal is looked for where it was"
    )
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)  # as with cuDNN at hand
    monkeypatch.setattr(fused, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(fused, "is_cuda_compute_capability_equal", lambda _: False)
    causal, lengths = options(form).values()
    theirs = {"is_causal": causal, "key_value_seq_lengths": lengths, "implementation": "cudnn"}

    def gradient(compute, tokens, **options):
        x = jax.ShapeDtypeStruct((2, tokens, 3, 8), jnp.bfloat16)
        return jax.eval_shape(jax.grad(lambda x: jnp.sum(compute(x, x, x, **options))), x)

    assert gradient(jax.nn.dot_product_attention, 8, **theirs).shape == (2, 8, 3, 8)
    with pytest.raises(NotImplementedError, match="sequence length"):
        gradient(jax.nn.dot_product_attention, 7, **theirs)
    ours = {"causal": causal, "lengths": lengths, "platform": GPU}
    assert gradient(attention, 7, **ours).shape == (2, 7, 3, 8)


def test_attention_takes_scores_of_any_size():
    x = jnp.full((1, 3, 1, 4), 300.0)
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(attention(x, x, x)))(x)
    assert value == pytest.approx(3600)
    assert jnp.all(jnp.isfinite(gradient))
