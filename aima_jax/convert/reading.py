"""Reading a model of known shape and layout, with every key on both sides accounted for."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from aima_jax.convert.layouts import HARMLESS, ArrayShape, Entry, Row, entries_of, identity
from aima_jax.convert.weights import Weights
from aima_jax.models import AIMA, CLIP, AIMAConfig, CLIPConfig, resize_positions
from aima_jax.models.layers import Resize
from aima_jax.parameters import Parameters, bind, flatten
from aima_jax.platform import platform_of
from aima_jax.sharding import put_array, state_shardings

POSITIONS = ("vision.position_embedding", "vision.attention_pool.position_embedding")


def read_model(
    weights: Weights,
    table: tuple[Row, ...] | None,
    source: CLIPConfig | AIMAConfig,
    target: CLIPConfig | AIMAConfig,
    *,
    position_resize: Resize = "bilinear",
    mesh: Mesh | None,
    seed: int = 0,
) -> CLIP | AIMA:
    """Read a complete checkpoint, each array once and directly to its devices.

    Args:
        weights: the arrays.
        table: their names; our own names if None.
        source: shape of the saved model.
        target: the same model, except for image size, patch stride and categories.
        position_resize: "bilinear" or "bicubic".
        mesh: the devices that the parameters are spread over; the default device if None.
        seed: of a new classifier, if the number of categories differs.

    Raises:
        ValueError: the checkpoint does not contain exactly the arrays of the source.
    """
    saved = _abstract(source)
    expected = {name: tuple(x.shape) for name, x in flatten(saved).items()}
    entries = identity(expected) if table is None else entries_of(expected, table)
    check_complete(weights, entries, expected, what=_describe(source))

    skeleton = _abstract(target, mesh)
    new: Parameters = {}
    if isinstance(target, AIMAConfig) and _categories(source) != target.num_categories:
        entries = [entry for entry in entries if not entry.ours[0].startswith("classifier.")]
        new = _new_classifier(target, seed, mesh)
    old_grid, grid = (_clip(c).vision.grid(_clip(c).image_size) for c in (source, target))

    def resize(name: str, array: np.ndarray) -> np.ndarray:
        if not name.endswith(POSITIONS):
            return array
        return np.asarray(resize_positions(jnp.asarray(array), old_grid, grid, position_resize))

    return bind(skeleton, read_parameters(weights, entries, mesh=mesh, change=resize) | new)


def adapt(
    source: CLIPConfig | AIMAConfig,
    image_size: tuple[int, int] | None = None,
    patch_stride: int | None = None,
    num_categories: int | None = None,
) -> CLIPConfig | AIMAConfig:
    """Config of the same model for other image sizes and person categories, if given."""
    if isinstance(source, CLIPConfig):
        return source.resized(image_size, patch_stride)
    categories = source.num_categories if num_categories is None else num_categories
    clip = source.clip.resized(image_size, patch_stride)
    return dataclasses.replace(source, clip=clip, num_categories=categories)


def _abstract(config: CLIPConfig | AIMAConfig, mesh: Mesh | None = None) -> CLIP | AIMA:
    """The model without its parameters, in the plain form if no mesh is given."""
    platform = platform_of(mesh) if mesh else None
    if isinstance(config, CLIPConfig):
        return nnx.eval_shape(lambda: CLIP(config, rngs=nnx.Rngs(0), platform=platform))
    return nnx.eval_shape(lambda: AIMA(config, rngs=nnx.Rngs(0), platform=platform))


def _clip(config: CLIPConfig | AIMAConfig) -> CLIPConfig:
    return config if isinstance(config, CLIPConfig) else config.clip


def _categories(config: CLIPConfig | AIMAConfig) -> int:
    return 0 if isinstance(config, CLIPConfig) else config.num_categories


def _describe(config: CLIPConfig | AIMAConfig) -> str:
    """A model in words, for messages."""
    clip = _clip(config)
    tower = type(clip.vision).__name__.removesuffix("Config")
    if layers := getattr(clip.vision, "layers", None):  # a user's own tower need not have any
        tower += f" of {layers if isinstance(layers, int) else sum(layers)} blocks"
    words = f"a CLIP ({tower}, {clip.text.layers} text blocks)"
    if isinstance(config, AIMAConfig):
        words += f" with a fusion module of {config.fusion_depth} blocks"
    return words


def _new_classifier(config: AIMAConfig, seed: int, mesh: Mesh | None) -> Parameters:
    """Initialise the identity classifier that a new model with this seed would have."""

    @jax.jit  # so that no other part of the model is computed
    def draw() -> Parameters:
        params = flatten(AIMA(config, rngs=nnx.Rngs(seed)))
        return {name: x for name, x in params.items() if name.startswith("classifier.")}

    return {name: put(np.asarray(x), mesh) for name, x in draw().items()}


def check_complete(
    weights: Weights,
    entries: Sequence[Entry],
    expected: Mapping[str, ArrayShape],
    *,
    what: str,
) -> None:
    """Check that a file contains exactly the arrays that a model needs.

    Args:
        entries: the names of the model's arrays in the file.
        expected: shapes of the model's arrays by our names.
        what: the model in words, for the message.

    Raises:
        ValueError: keys are missing, unexpected or of wrong shape; the message lists every one.
    """
    needed = {entry.theirs: entry.their_shape(expected[entry.ours[0]]) for entry in entries}
    extra = weights.shapes.keys() - needed.keys()
    problems = {
        "missing": sorted(needed.keys() - weights.shapes.keys()),
        "unexpected": sorted(
            name for name in extra if not any(re.fullmatch(key, name) for key in HARMLESS)
        ),
        "of wrong shape": [
            f"{name} is {weights.shapes[name]}, expected {shape}"
            for name, shape in sorted(needed.items())
            if name in weights.shapes and weights.shapes[name] != shape
        ],
    }
    if any(problems.values()):
        raise ValueError(
            f"{weights.path} does not contain {what}:"
            + "".join(
                f"\n  {problem} ({len(names)}): {', '.join(names)}"
                for problem, names in problems.items()
                if names
            )
        )


def read_parameters(
    weights: Weights,
    entries: Sequence[Entry],
    *,
    mesh: Mesh | None,
    change: Callable[[str, np.ndarray], np.ndarray] = lambda name, array: array,
) -> Parameters:
    """Read arrays one after the other, each directly to its devices.

    Args:
        weights: checked by `check_complete`.
        entries: the arrays to read.
        mesh: the devices that the arrays are spread over; the default device if None.
        change: applied to each of our arrays before it is placed.

    Raises:
        ValueError: an array contains integers or non-finite numbers.
    """
    params = {}
    for entry in entries:
        array = weights.read(entry.theirs)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(
                f"{weights.path}: {entry.theirs} has dtype {array.dtype}, expected floating-point "
                "numbers"
            )
        for name, part in zip(entry.ours, entry.split(array), strict=True):
            part = np.ascontiguousarray(part, np.float32)
            if not np.isfinite(part).all():
                raise ValueError(
                    f"{weights.path}: {entry.theirs} has numbers that are not finite: the file "
                    "is damaged, or its training failed"
                )
            params[name] = put(change(name, part), mesh)
    return params


def put(array: np.ndarray, mesh: Mesh | None) -> jax.Array:
    """Put an array on the devices of a mesh, its own part on each."""
    if mesh is None:
        return jnp.array(array)
    sharding = state_shardings(jax.ShapeDtypeStruct(array.shape, array.dtype), mesh)
    return put_array(array, sharding)
