"""The five losses against float64 numpy written from the formulas, and what must hold of them."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from aima_jax import losses

B, D, C, K, V = 12, 6, 5, 3, 11  # batch, dim, categories, masked positions, vocabulary
PLAIN = ("info_nce", "multi_positive", "sdm", "iou_softmax", "iou_normalized")
EVERY = (*PLAIN, "identity", "map")


def draw(dtype=np.float64):
    """Features of very different lengths, logits, and labels with repetitions."""
    rng = np.random.default_rng(0)
    attributes = rng.integers(0, 2, (B, 7))
    attributes[[2, 5]] = 0  # two empty sets
    return {
        "images": (rng.normal(size=(B, D)) * rng.uniform(0.1, 20, (B, 1))).astype(dtype),
        "texts": (rng.normal(size=(B, D)) * rng.uniform(0.1, 20, (B, 1))).astype(dtype),
        "labels": rng.integers(0, C, B),
        "attributes": attributes.astype(np.uint8),
        "image_logits": (3 * rng.normal(size=(B, C))).astype(dtype),
        "text_logits": (3 * rng.normal(size=(B, C))).astype(dtype),
        "logits": (3 * rng.normal(size=(B, K, V))).astype(dtype),
        "targets": rng.integers(0, V, (B, K)),
        "mask": rng.random((B, K)) < 0.4,
    }


def inputs_of(name):
    """Names of the arrays by which a loss is differentiated."""
    if name == "identity":
        return ("image_logits", "text_logits")
    if name == "map":
        return ("logits",)
    return ("texts",) if name.startswith("iou") else ("images", "texts")


def ours(name, x, temperature=0.02, **options):
    pair = x.get("images"), x["texts"]
    options = {"temperature": temperature, **options}
    match name:
        case "info_nce":
            return losses.info_nce(*pair, **options)
        case "multi_positive":
            return losses.info_nce(*pair, labels=x["labels"], **options)
        case "sdm":
            return losses.similarity_distribution_matching(*pair, x["labels"], **options)
        case "identity":
            return losses.identity_loss(x["image_logits"], x["text_logits"], x["labels"])
        case "map":
            return losses.masked_attribute_prediction(x["logits"], x["targets"], x["mask"])
    target = name.removeprefix("iou_")
    return losses.attribute_iou_contrastive(x["texts"], x["attributes"], target=target, **options)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def similarity_rows(a, b, temperature):
    """softmax_j(cos(a_i, b_j) / T), a row at a time."""
    for row in a:
        cosines = b @ row / (np.linalg.norm(b, axis=1) * np.linalg.norm(row))
        yield softmax(cosines / temperature)


def jaccard(a, b):
    a, b = set(np.flatnonzero(a)), set(np.flatnonzero(b))
    return len(a & b) / len(a | b) if a | b else 1.0


def divergence(p, q, epsilon=1e-8):
    return sum(pj * (np.log(pj) - np.log(qj + epsilon)) for pj, qj in zip(p, q, strict=True))


def negative_log_likelihood(logits, label):
    return -np.log(softmax(logits)[label])


def reference(name, x, temperature=0.02):
    labels = x["labels"]
    if name == "identity":
        rows = [
            negative_log_likelihood(x[side][i], labels[i])
            for side in ("image_logits", "text_logits")
            for i in range(B)
        ]
        return np.sum(rows) / B / 2
    if name == "map":
        where = np.argwhere(x["mask"])
        return np.mean(
            [negative_log_likelihood(x["logits"][i, k], x["targets"][i, k]) for i, k in where]
        )
    if name.startswith("iou"):
        iou = np.array([[jaccard(a, b) for b in x["attributes"]] for a in x["attributes"]])
        q = [softmax(r / temperature) if name == "iou_softmax" else r / r.sum() for r in iou]
        p = similarity_rows(x["texts"], x["texts"], temperature)
        return np.mean([divergence(p_i, q_i) for p_i, q_i in zip(p, q, strict=True)])

    same = np.eye(B) if name == "info_nce" else labels[:, None] == labels[None, :]
    q = same / same.sum(1, keepdims=True)
    ways = []
    for a, b in ((x["images"], x["texts"]), (x["texts"], x["images"])):
        p = similarity_rows(a, b, temperature)
        if name == "sdm":
            ways.append(np.mean([divergence(p_i, q_i) for p_i, q_i in zip(p, q, strict=True)]))
        else:
            ways.append(np.mean([-q_i @ np.log(p_i) for p_i, q_i in zip(p, q, strict=True)]))
    return sum(ways) if name == "sdm" else sum(ways) / 2


@pytest.mark.parametrize("temperature", [0.02, 0.5])
@pytest.mark.parametrize("name", EVERY)
def test_value_equals_the_formula(name, temperature):
    expected = reference(name, draw(), temperature)
    narrow = ours(name, draw(np.float32), temperature)
    assert narrow.shape == () and narrow.dtype == jnp.float32
    np.testing.assert_allclose(narrow, expected, rtol=1e-5)
    with jax.enable_x64(True):
        wide = ours(name, draw(), temperature)
        assert wide.dtype == jnp.float64
        np.testing.assert_allclose(wide, expected, rtol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_gradient_equals_finite_differences_of_the_formula(name):
    x, temperature, step = draw(), 0.1, 1e-5
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        by = {key: jnp.asarray(x[key]) for key in inputs_of(name)}
        gradient = jax.jit(jax.grad(lambda by: ours(name, {**x, **by}, temperature)))(by)
        gradient = jax.tree.map(np.asarray, gradient)
    for _ in range(4):
        direction = {key: rng.normal(size=x[key].shape) for key in by}
        ahead, behind = (
            reference(name, {**x, **{k: x[k] + s * step * direction[k] for k in by}}, temperature)
            for s in (1, -1)
        )
        slope = sum(np.sum(gradient[key] * direction[key]) for key in by)
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_bfloat16_is_widened_first(name):
    x = draw(jnp.bfloat16)
    widened = {key: v.astype(np.float32) if v.dtype == jnp.bfloat16 else v for key, v in x.items()}
    assert ours(name, x).dtype == jnp.float32
    assert ours(name, x) == ours(name, widened)


@pytest.mark.parametrize("name", EVERY)
def test_order_of_the_batch_does_not_matter(name):
    x = draw()
    order = np.random.default_rng(2).permutation(B)
    with jax.enable_x64(True):
        shuffled = ours(name, {key: value[order] for key, value in x.items()})
        np.testing.assert_allclose(shuffled, ours(name, x), rtol=1e-12)


@pytest.mark.parametrize("name", PLAIN)
def test_length_of_features_does_not_matter(name):
    x = draw()
    lengths = np.random.default_rng(3).uniform(1e-6, 1e6, (B, 1))
    with jax.enable_x64(True):
        scaled = ours(name, x | {"images": x["images"] * lengths, "texts": x["texts"] / lengths})
        np.testing.assert_allclose(scaled, ours(name, x), rtol=1e-10)


def test_multi_positive_with_distinct_labels_is_plain_info_nce():
    x = draw(np.float32) | {"labels": np.random.default_rng(4).permutation(1000)[:B]}
    assert ours("multi_positive", x) == ours("info_nce", x)


def test_sdm_vanishes_where_similarity_is_the_label():
    labels = draw()["labels"]
    x = {"images": np.eye(C)[labels], "texts": np.eye(C)[labels], "labels": labels}
    assert abs(ours("sdm", x)) < 1e-6


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5])
def test_iou_softmax_vanishes_where_cosine_is_iou(temperature):
    attributes = draw()["attributes"][[0, 1, 2, 3, 4, 6]]  # distinct, one empty
    iou = np.array([[jaccard(a, b) for b in attributes] for a in attributes])
    features = np.linalg.cholesky(iou)  # rows of length 1 whose products are the IoUs
    with jax.enable_x64(True):
        loss = ours("iou_softmax", {"texts": features, "attributes": attributes}, temperature)
        assert abs(loss) < 1e-6
        loss = ours("iou_softmax", {"texts": np.eye(6), "attributes": attributes}, temperature)
        assert loss > 1e-3


def test_empty_sets_are_alike():
    x = {"texts": np.ones((2, 3), np.float32), "attributes": np.zeros((2, 4), np.uint8)}
    for target in ("softmax", "normalized"):
        assert abs(ours(f"iou_{target}", x)) < 1e-6


@pytest.mark.parametrize("chunk_size", [None, 5])
@pytest.mark.parametrize("name", PLAIN)
def test_zero_and_opposite_features_have_finite_gradients(name, chunk_size):
    x = draw(np.float32)
    x["texts"][0], x["images"][1] = 0, 0
    x["texts"][3], x["images"][3] = x["texts"][4], -x["texts"][4]

    def loss(by):
        return ours(name, {**x, **by}, chunk_size=chunk_size)

    by = {key: jnp.asarray(x[key]) for key in inputs_of(name)}
    value, gradient = jax.jit(jax.value_and_grad(loss))(by)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() and np.abs(g).max() < 1e4 for g in gradient.values())


def test_map_counts_masked_positions_alone():
    x = draw(np.float32)
    garbage = np.where(x["mask"], x["targets"], -100)
    assert ours("map", x | {"targets": garbage}) == ours("map", x)
    elsewhere = np.where(x["mask"][..., None], x["logits"], 1e6).astype(np.float32)
    assert ours("map", x | {"logits": elsewhere}) == ours("map", x)
    gradient = jax.grad(lambda logits: ours("map", x | {"logits": logits}))(x["logits"])
    assert not np.any(gradient[~x["mask"]])
    assert np.all(np.any(gradient[x["mask"]], axis=-1))


def test_map_of_nothing_is_zero():
    x = draw(np.float32) | {"mask": np.zeros((B, K), bool)}
    value, gradient = jax.value_and_grad(lambda logits: ours("map", x | {"logits": logits}))(
        x["logits"]
    )
    assert value == 0 and not np.any(gradient)


def test_a_label_beyond_the_categories_is_not_silent():
    x = draw(np.float32) | {"labels": np.full(B, C)}
    assert np.isnan(ours("identity", x))


JAXPRS = jax.extend.core.Jaxpr, jax.extend.core.ClosedJaxpr


def products(jaxpr, operands):
    """Precisions of the matrix products in a traced function that involve arrays of such a size."""
    for equation in jaxpr.eqns:
        shapes = {variable.aval.shape for variable in equation.invars}
        if equation.primitive.name == "dot_general" and shapes & operands:
            yield equation.params["precision"]
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, JAXPRS)):
            if isinstance(inner, JAXPRS):
                yield from products(getattr(inner, "jaxpr", inner), operands)


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("name", PLAIN)
def test_products_of_features_are_at_the_highest_precision(name, chunk_size):
    """An accelerator would otherwise round them to bfloat16, which no test on a CPU can see."""
    x = draw(np.float32)
    inputs = inputs_of(name)

    def loss(*features):
        return ours(name, x | dict(zip(inputs, features, strict=True)), chunk_size=chunk_size)

    traced = jax.make_jaxpr(jax.value_and_grad(loss))(*(x[key] for key in inputs))
    highest = jax.lax.Precision.HIGHEST
    found = [*products(traced.jaxpr, {(B, D), (D, B), (4, D), (D, 4)})]
    assert len(found) >= len(inputs) and set(found) == {(highest, highest)}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        (
            "info_nce",
            {"texts": np.ones((B + 1, D))},
            r"text_features.*\[batch=12, dim=6\]",
        ),
        ("info_nce", {"images": np.ones(D)}, r"image_features has shape \[6\]; expected \[batch"),
        ("multi_positive", {"labels": np.ones(3, int)}, r"labels has shape \[3\]"),
        ("sdm", {"texts": np.ones((B, D + 1))}, r"text_features has shape \[12, 7\]"),
        ("sdm", {"labels": np.ones((B, 1), int)}, r"labels has shape \[12, 1\]"),
        ("identity", {"text_logits": np.ones((B, C + 1))}, "text_logits"),
        ("identity", {"labels": np.ones(B - 1, int)}, "labels"),
        ("map", {"targets": np.ones((B, K + 1), int)}, r"targets.*expected \[batch=12, k=3\]"),
        ("map", {"mask": np.ones(B, bool)}, "mask"),
        ("iou_softmax", {"attributes": np.ones((B - 1, 4))}, "attributes"),
        ("iou_cosine", {}, "target is 'cosine'; expected 'softmax' or 'normalized'"),
    ],
)
def test_wrong_arguments_are_named(name, wrong, message):
    with pytest.raises(ValueError, match=message):
        ours(name, draw(np.float32) | wrong)
