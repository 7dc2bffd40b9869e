"""What a model promises whatever its weights: shapes, options that change no number, its paths."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aima_jax.models import (
    AIMA,
    CLIP,
    PRESETS,
    AIMAConfig,
    CLIPConfig,
    TextConfig,
    ViTConfig,
    resize_positions,
    text_mask,
)
from aima_jax.models.aima import Fusion
from aima_jax.parameters import bind, flatten
from aima_jax.platform import Platform
from aima_jax.sharding import make_mesh, state_shardings

CPU = Platform("cpu")
TOWER = {"width": 64, "layers": 2, "heads": 2, "mlp_width": 256}
SMALL = CLIPConfig(
    image_size=(32, 16),
    dim=64,
    vision=ViTConfig(**TOWER, patch_size=16, patch_stride=8),
    text=TextConfig(**TOWER),
)
CONFIG = AIMAConfig(SMALL, num_categories=6, fusion_depth=2)
TOKENS = np.zeros((2, 16), np.int32)
TOKENS[0, :6] = 49406, 320, 1125, 539, 320, 49407
TOKENS[1, :16] = [49406, *range(400, 414), 49407]
TOKENS = jnp.asarray(TOKENS)


def make(config):
    return jax.jit(lambda: nnx.state(AIMA(config, rngs=nnx.Rngs(0))))()


def model_of(config, state):
    return nnx.merge(
        nnx.split(nnx.eval_shape(lambda: AIMA(config, rngs=nnx.Rngs(0), platform=CPU)))[0], state
    )


@pytest.fixture(scope="module")
def state():
    return make(CONFIG)


@nnx.jit
def encode_image(model, images):
    return model.encode_image(images)


@nnx.jit
def encode_text(model, tokens):
    return model.encode_text(tokens)


def images(height=32, width=16):
    return jnp.float32(np.random.default_rng(0).normal(size=(2, height, width, 3)))


def value_and_gradient(config, state):
    """A scalar of everything that the model computes, and its gradient."""
    model = nnx.eval_shape(lambda: AIMA(config, rngs=nnx.Rngs(0), platform=CPU))
    graph = nnx.split(model)[0]

    @jax.jit
    @jax.value_and_grad
    def run(state):
        model = nnx.merge(graph, state)
        image, image_tokens = model.encode_image(images())
        text, text_tokens = model.encode_text(TOKENS)
        hidden = model.fuse(text_tokens, image_tokens, text_mask(TOKENS))
        words = jax.nn.log_softmax(model.predict_masked(hidden[:, 1:3]))
        return jnp.sum(image * text) + jnp.mean(words) + jnp.sum(model.classify(image))

    return run(state)


def relative_difference(ours, theirs):
    """Of a value and its gradient, by the largest element of each array.

    The same shift of all keys changes no softmax: the gradient of their bias is rounding, and is
    compared by the size of the queries'.
    """
    (value, ours), (expected, theirs) = ours, theirs
    ours, theirs = flatten(ours), flatten(theirs)
    assert ours.keys() == theirs.keys()
    differences = [jnp.abs(value - expected) / jnp.abs(expected)]
    for name, x in theirs.items():
        scale = theirs[name.replace("key.bias", "query.bias")]
        differences.append(jnp.max(jnp.abs(ours[name] - x)) / (1e-6 + jnp.max(jnp.abs(scale))))
    return float(max(differences))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_published_shapes(name):
    config = CLIPConfig.preset(name, image_size=(384, 128))
    clip = nnx.eval_shape(lambda: CLIP(config, rngs=nnx.Rngs(0), platform=CPU))
    grids = {"ViT-B/32": (12, 4), "ViT-B/16": (24, 8), "tiny": (48, 16)}
    grid = grids.get(name, (27, 9) if "L/14" in name else (12, 4))
    assert config.vision.grid((384, 128)) == grid
    features, tokens = jax.eval_shape(
        lambda clip, x: clip.encode_image(x), clip, jnp.zeros((2, 384, 128, 3))
    )
    assert features.shape == (2, config.dim)
    assert tokens.shape == (2, 1 + grid[0] * grid[1], config.dim)
    sizes = {  # parameters of OpenAI's models at their own image size, the logit scale left out
        "ViT-B/32": 151_277_312,
        "ViT-B/16": 149_620_736,
        "ViT-L/14": 427_616_512,
        "ViT-L/14@336": 427_944_192,
        "RN50": 102_007_136 + 2 * 26_624,  # statistics count here
        "RN101": 119_688_032 + 2 * 52_736,
        "RN50x4": 178_300_600 + 2 * 54_880,
    }
    if name in sizes:
        own = nnx.eval_shape(lambda: CLIP(CLIPConfig.preset(name), rngs=nnx.Rngs(0), platform=CPU))
        assert sum(x.size for x in flatten(own).values()) == sizes[name]


def test_configs_survive_json():
    for name in PRESETS:
        config = AIMAConfig(CLIPConfig.preset(name, patch_stride=None, dtype="bfloat16"), 7)
        assert AIMAConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        vision = dataclasses.replace(
            config.clip.vision, pixel_mean=(0.5,) * 3, pixel_std=(1.0,) * 3
        )
        text = dataclasses.replace(config.clip.text, activation="gelu")
        other = dataclasses.replace(config.clip, vision=vision, text=text)
        assert CLIPConfig.from_dict(json.loads(json.dumps(other.to_dict()))) == other


def test_each_tower_has_its_own_activation(state):
    """An activation changes the features of its own tower, and of no other."""

    def features(vision, text):
        clip = dataclasses.replace(
            SMALL,
            vision=dataclasses.replace(SMALL.vision, activation=vision),
            text=dataclasses.replace(SMALL.text, activation=text),
        )
        model = model_of(AIMAConfig(clip, 6, 2), state)
        return [
            np.asarray(x) for x in (encode_image(model, images())[0], encode_text(model, TOKENS)[0])
        ]

    image, text = features("quick_gelu", "quick_gelu")
    other_image, same_text = features("gelu", "quick_gelu")
    same_image, other_text = features("quick_gelu", "gelu")
    assert np.array_equal(image, same_image) and np.array_equal(text, same_text)
    assert np.abs(image - other_image).max() > 1e-4
    assert np.abs(text - other_text).max() > 1e-4
    both = SMALL.with_towers(activation="gelu", vision_heads=4, text_heads=1)
    assert (both.vision.activation, both.text.activation) == ("gelu", "gelu")
    assert (both.vision.heads, both.text.heads) == (4, 1)
    resnet = PRESETS["RN50"].with_towers(activation="gelu")
    assert (resnet.vision, resnet.text.activation) == (PRESETS["RN50"].vision, "gelu")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CLIPConfig.preset("ViT-H/14"), "ViT-B/16"),
        (lambda: CLIPConfig.preset("RN50", patch_stride=8), "no patches"),
        (lambda: CLIPConfig.preset("tiny", image_size=(7, 64)), "too small for an image"),
        (lambda: CLIPConfig.preset("tiny", patch_stride=-1), "patch_stride"),
        (lambda: CLIPConfig.preset("tiny", remat="some"), "remat"),
        (lambda: CLIPConfig.preset("tiny", dtype="float16"), "bfloat16"),
        (lambda: dataclasses.replace(PRESETS["tiny"].text, heads=3), "heads"),
        (lambda: PRESETS["tiny"].with_towers(activation="relu"), r"ViTConfig\.activation"),
        (lambda: dataclasses.replace(PRESETS["RN50"].vision, pixel_mean=(0.5,)), "pixel_mean"),
        (lambda: dataclasses.replace(PRESETS["tiny"].vision, pixel_std=(0.5, 0, 0.5)), "over 0"),
        (lambda: AIMAConfig(PRESETS["tiny"], num_categories=6, fusion_depth=0), "fusion_depth"),
    ],
)
def test_impossible_configs_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.fixture(scope="module")
def plain(state):
    return value_and_gradient(CONFIG, state)


@pytest.mark.parametrize("options", [{"remat": "full"}, {"remat": "dots", "scan_layers": True}])
def test_scanning_and_rematerialising_change_no_number(plain, state, options):
    config = dataclasses.replace(CONFIG, clip=dataclasses.replace(SMALL, **options))
    assert relative_difference(plain, value_and_gradient(config, state)) < 2e-5


@pytest.mark.parametrize("platform", [None, CPU])
def test_rematerialising_keeps_less_for_the_backward_pass(state, platform):
    def kept(**options):
        config = dataclasses.replace(SMALL, **options)
        graph = nnx.split(
            nnx.eval_shape(lambda: CLIP(config, rngs=nnx.Rngs(0), platform=platform))
        )[0]

        def encode(state):
            return nnx.merge(graph, state).encode_text(jnp.repeat(TOKENS, 64, axis=0))[0]

        residuals = jax.eval_shape(lambda state: jax.vjp(encode, state)[1], state["clip"])
        return sum(x.size for x in jax.tree.leaves(residuals))

    assert kept(remat="full") < 0.7 * kept(remat="dots")
    if platform is None:
        assert kept(remat="dots") < kept()
    else:  # a CPU always computes all but the products again
        assert kept(remat="dots") == kept()


def test_scanned_layers_are_compiled_once(state):
    def length(layers, scan_layers):
        text = dataclasses.replace(SMALL.text, layers=layers)
        config = dataclasses.replace(SMALL, text=text, scan_layers=scan_layers)
        clip = nnx.eval_shape(lambda: CLIP(config, rngs=nnx.Rngs(0), platform=CPU))
        program = jax.make_jaxpr(lambda clip: clip.encode_text(TOKENS))(clip)
        return str(program).count("dot_general")

    assert length(4, scan_layers=True) == length(2, scan_layers=True)
    assert length(4, scan_layers=False) > length(2, scan_layers=False)


def test_bfloat16_computes_close_to_float32(state):
    config = dataclasses.replace(CONFIG, clip=dataclasses.replace(SMALL, dtype="bfloat16"))
    exact, rounded = model_of(CONFIG, state), model_of(config, state)
    for encode, x in ((encode_image, images()), (encode_text, TOKENS)):
        expected, _ = encode(exact, x)
        features, tokens = encode(rounded, x)
        assert features.dtype == jnp.float32
        assert tokens.dtype == jnp.bfloat16
        error = jnp.linalg.norm(features - expected) / jnp.linalg.norm(expected)
        assert 0 < error < 0.02
    assert jax.eval_shape(rounded.classify, features).dtype == jnp.float32
    assert jax.eval_shape(rounded.predict_masked, tokens[:, :2]).dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(nnx.state(rounded))} == {jnp.dtype("float32")}


def test_sentences_cut_to_the_table_length_give_the_features_of_77_tokens(state):
    model = model_of(CONFIG, state)
    padded = jnp.pad(TOKENS, ((0, 0), (0, 77 - 16)))
    short, short_tokens = encode_text(model, TOKENS)
    whole, whole_tokens = encode_text(model, padded)
    assert jnp.allclose(short, whole, rtol=1e-5, atol=1e-5)
    assert jnp.allclose(short_tokens, whole_tokens[:, :16], rtol=1e-5, atol=1e-5)


def test_a_sentence_beyond_the_context_is_refused(state):
    with pytest.raises(ValueError, match="78 tokens"):
        model_of(CONFIG, state).encode_text(jnp.zeros((1, 78), jnp.int32))


def test_text_features_are_those_of_the_first_end_of_text(state):
    tokens = TOKENS.at[0, 8].set(49407)
    features, encoded = encode_text(model_of(CONFIG, state), tokens)
    assert jnp.array_equal(features[0], encoded[0, 5])
    assert jnp.array_equal(features[1], encoded[1, 15])


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_image_features_are_those_of_encode_image(scan_layers, layers):
    vision = dataclasses.replace(SMALL.vision, layers=layers)
    config = dataclasses.replace(SMALL, vision=vision, scan_layers=scan_layers)
    model = AIMA(dataclasses.replace(CONFIG, clip=config), rngs=nnx.Rngs(0), platform=CPU)
    features = nnx.jit(lambda model, images: model.image_features(images))(model, images())
    assert features.dtype == jnp.float32
    np.testing.assert_allclose(features, encode_image(model, images())[0], rtol=1e-5, atol=1e-6)


def test_image_features_do_without_the_other_tokens_of_the_last_block(state):
    def flops(encode):
        def run(state):
            return encode(model_of(CONFIG, state))

        return jax.jit(run).lower(state).compile().cost_analysis()["flops"]

    # Of the last of two blocks keys and values are left, and of the patches what they were.
    whole = flops(lambda model: model.encode_image(images())[0])
    assert flops(lambda model: model.image_features(images())) < 0.8 * whole


def test_images_of_another_size_get_a_resized_grid(state):
    model = model_of(CONFIG, state)
    _, tokens = encode_image(model, images(48, 33))
    assert tokens.shape == (2, 1 + 5 * 3, 64)
    table = model.clip.vision.position_embedding[...]
    other = dataclasses.replace(CONFIG, clip=SMALL.resized(image_size=(48, 33)))
    params = flatten(model)
    params["clip.vision.position_embedding"] = resize_positions(table, (3, 1), (5, 3))
    skeleton = nnx.eval_shape(lambda: AIMA(other, rngs=nnx.Rngs(0), platform=CPU))
    _, expected = encode_image(bind(skeleton, params), images(48, 33))
    np.testing.assert_allclose(tokens, expected, rtol=1e-5, atol=1e-5)


def test_initial_scales_are_those_of_the_method(state):
    params = flatten(model_of(CONFIG, state))
    s, out = 64**-0.5, 64**-0.5 * (2 * 2) ** -0.5
    expected = {
        "fusion.cross_attention.query.kernel": s,
        "fusion.cross_attention.out.kernel": out,
        "fusion.blocks.1.attention.value.kernel": s,
        "fusion.blocks.0.attention.out.kernel": out,
        "fusion.blocks.0.mlp.up.kernel": 128**-0.5,
        "fusion.blocks.0.mlp.down.kernel": out,
        "map_head.dense.kernel": 128**-0.5,
        "map_head.output.kernel": out,
        "classifier.kernel": 0.001,
        "clip.text.token_embedding": 0.02,
        "clip.text.position_embedding": 0.01,
        "clip.text.blocks.1.attention.out.kernel": out,
        "clip.vision.blocks.0.mlp.up.kernel": 128**-0.5,
        "clip.vision.projection.kernel": s,
    }
    for name, scale in expected.items():
        assert np.std(params[name]) == pytest.approx(scale, rel=0.1), name
    for name, value in params.items():
        if name.endswith((".bias", ".scale")):
            assert jnp.all(value == (1 if name.endswith("scale") else 0)), name


def test_parameters_are_born_in_their_shards():
    def init():
        return flatten(Fusion(SMALL, 1, rngs=nnx.Rngs(0)))

    mesh = make_mesh(data=4, fsdp=2)
    shardings = state_shardings(jax.eval_shape(init), mesh, min_shard_elements=1)
    born = jax.jit(init, out_shardings=shardings)()
    kernel = born["blocks.0.mlp.up.kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(64, 128)}
    np.testing.assert_allclose(kernel, init()["blocks.0.mlp.up.kernel"], rtol=1e-6)


def test_a_model_without_categories_has_no_classifier():
    model = nnx.eval_shape(
        lambda: AIMA(dataclasses.replace(CONFIG, num_categories=0), rngs=nnx.Rngs(0))
    )
    assert not any(name.startswith("classifier") for name in flatten(model))
    with pytest.raises(ValueError, match="num_categories"):
        model.classify(jnp.zeros((1, 64)))
