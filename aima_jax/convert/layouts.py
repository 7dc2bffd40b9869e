"""Layouts of weights: bidirectional tables between our arrays and theirs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ArrayShape = tuple[int, ...]

# The permutation of axes that converts one of their arrays to ours.
SAME = None
TRANSPOSED = (1, 0)  # PyTorch's Linear is [outputs, inputs]
CONVOLUTION = (2, 3, 1, 0)  # PyTorch's is [outputs, inputs, rows, columns]


@dataclass(frozen=True)
class Row:
    """One of their arrays, and ours, with `*` for a number.

    Several arrays of ours are concatenated along the first axis of theirs.
    """

    theirs: str
    ours: tuple[str, ...]
    axes: tuple[int, ...] | None = SAME


def _norm(theirs: str, ours: str) -> list[Row]:
    return [Row(f"{theirs}.weight", (f"{ours}.scale",)), Row(f"{theirs}.bias", (f"{ours}.bias",))]


def _linear(theirs: str, ours: str) -> list[Row]:
    return [
        Row(f"{theirs}.weight", (f"{ours}.kernel",), TRANSPOSED),
        Row(f"{theirs}.bias", (f"{ours}.bias",)),
    ]


def _multihead_attention(theirs: str, ours: str) -> list[Row]:
    """`torch.nn.MultiheadAttention`, which keeps its three projections in one array."""
    parts = [f"{ours}.{part}" for part in ("query", "key", "value")]
    return [
        Row(f"{theirs}.in_proj_weight", tuple(f"{part}.kernel" for part in parts), TRANSPOSED),
        Row(f"{theirs}.in_proj_bias", tuple(f"{part}.bias" for part in parts)),
        *_linear(f"{theirs}.out_proj", f"{ours}.out"),
    ]


def _hugging_face_blocks(theirs: str, ours: str) -> list[Row]:
    return [
        *_norm(f"{theirs}.layer_norm1", f"{ours}.attention_norm"),
        *_linear(f"{theirs}.self_attn.q_proj", f"{ours}.attention.query"),
        *_linear(f"{theirs}.self_attn.k_proj", f"{ours}.attention.key"),
        *_linear(f"{theirs}.self_attn.v_proj", f"{ours}.attention.value"),
        *_linear(f"{theirs}.self_attn.out_proj", f"{ours}.attention.out"),
        *_norm(f"{theirs}.layer_norm2", f"{ours}.mlp_norm"),
        *_linear(f"{theirs}.mlp.fc1", f"{ours}.mlp.up"),
        *_linear(f"{theirs}.mlp.fc2", f"{ours}.mlp.down"),
    ]


def _openai_blocks(theirs: str, ours: str) -> list[Row]:
    return [
        *_norm(f"{theirs}.ln_1", f"{ours}.attention_norm"),
        *_multihead_attention(f"{theirs}.attn", f"{ours}.attention"),
        *_norm(f"{theirs}.ln_2", f"{ours}.mlp_norm"),
        *_linear(f"{theirs}.mlp.c_fc", f"{ours}.mlp.up"),
        *_linear(f"{theirs}.mlp.c_proj", f"{ours}.mlp.down"),
    ]


def _conv_norm(theirs: str, number: str, ours: str) -> list[Row]:
    """A convolution and the batch normalisation of the same number."""
    return [
        Row(f"{theirs}conv{number}.weight", (f"{ours}.kernel",), CONVOLUTION),
        *_batch_norm(f"{theirs}bn{number}", ours),
    ]


def _batch_norm(theirs: str, ours: str) -> list[Row]:
    return [
        *_norm(theirs, ours),
        Row(f"{theirs}.running_mean", (f"{ours}.mean",)),
        Row(f"{theirs}.running_var", (f"{ours}.variance",)),
    ]


def _bottlenecks(theirs: str, ours: str) -> list[Row]:
    rows = [row for n in "123" for row in _conv_norm(f"{theirs}.", n, f"{ours}.conv{n}")]
    shortcut = f"{ours}.shortcut"
    rows.append(Row(f"{theirs}.downsample.0.weight", (f"{shortcut}.kernel",), CONVOLUTION))
    return rows + _batch_norm(f"{theirs}.downsample.1", shortcut)


HUGGING_FACE = (
    Row("vision_model.embeddings.class_embedding", ("vision.class_embedding",)),
    Row(
        "vision_model.embeddings.patch_embedding.weight",
        ("vision.patch_embedding.kernel",),
        CONVOLUTION,
    ),
    Row("vision_model.embeddings.position_embedding.weight", ("vision.position_embedding",)),
    *_norm("vision_model.pre_layrnorm", "vision.pre_norm"),
    *_hugging_face_blocks("vision_model.encoder.layers.*", "vision.blocks.*"),
    *_norm("vision_model.post_layernorm", "vision.post_norm"),
    Row("visual_projection.weight", ("vision.projection.kernel",), TRANSPOSED),
    Row("text_model.embeddings.token_embedding.weight", ("text.token_embedding",)),
    Row("text_model.embeddings.position_embedding.weight", ("text.position_embedding",)),
    *_hugging_face_blocks("text_model.encoder.layers.*", "text.blocks.*"),
    *_norm("text_model.final_layer_norm", "text.final_norm"),
    Row("text_projection.weight", ("text.projection.kernel",), TRANSPOSED),
)

OPENAI = (
    Row("visual.class_embedding", ("vision.class_embedding",)),
    Row("visual.conv1.weight", ("vision.patch_embedding.kernel",), CONVOLUTION),
    Row("visual.positional_embedding", ("vision.position_embedding",)),
    *_norm("visual.ln_pre", "vision.pre_norm"),
    *_openai_blocks("visual.transformer.resblocks.*", "vision.blocks.*"),
    *_norm("visual.ln_post", "vision.post_norm"),
    Row("visual.proj", ("vision.projection.kernel",)),
    Row("token_embedding.weight", ("text.token_embedding",)),
    Row("positional_embedding", ("text.position_embedding",)),
    *_openai_blocks("transformer.resblocks.*", "text.blocks.*"),
    *_norm("ln_final", "text.final_norm"),
    Row("text_projection", ("text.projection.kernel",)),
)

_IMAGE_TOWER = "visual."

OPENAI_RESNET = (
    *(row for n in "123" for row in _conv_norm("visual.", n, f"vision.conv{n}")),
    *(row for n in "1234" for row in _bottlenecks(f"visual.layer{n}.*", f"vision.layer{n}.*")),
    Row("visual.attnpool.positional_embedding", ("vision.attention_pool.position_embedding",)),
    *_linear("visual.attnpool.q_proj", "vision.attention_pool.query"),
    *_linear("visual.attnpool.k_proj", "vision.attention_pool.key"),
    *_linear("visual.attnpool.v_proj", "vision.attention_pool.value"),
    *_linear("visual.attnpool.c_proj", "vision.attention_pool.out"),
    *(row for row in OPENAI if not row.theirs.startswith(_IMAGE_TOWER)),
)

_IRRA_FUSION = (
    *_norm("ln_pre_t", "fusion.text_norm"),
    *_norm("ln_pre_i", "fusion.image_norm"),
    *_multihead_attention("cross_attn", "fusion.cross_attention"),
    *_openai_blocks("cross_modal_transformer.resblocks.*", "fusion.blocks.*"),
    *_norm("ln_post", "fusion.final_norm"),
    *_linear("mlm_head.dense", "map_head.dense"),
    *_norm("mlm_head.ln", "map_head.norm"),
    *_linear("mlm_head.fc", "map_head.output"),
    *_linear("classifier", "classifier"),
)


def custom_text(clip: tuple[Row, ...]) -> tuple[Row, ...]:
    """The table of open_clip's models with `custom_text`, whose text tower has a prefix."""
    return tuple(
        row
        if row.theirs.startswith(_IMAGE_TOWER)
        else Row(f"text.{row.theirs}", row.ours, row.axes)
        for row in clip
    )


def irra(clip: tuple[Row, ...]) -> tuple[Row, ...]:
    """The table of IRRA's checkpoints, whose CLIP has the names of one of OpenAI's tables."""
    inner = (
        Row(f"base_model.{row.theirs}", tuple(f"clip.{name}" for name in row.ours), row.axes)
        for row in clip
    )
    return (*inner, *_IRRA_FUSION)


# Keys that are not weights, or not used here, and why they may be ignored.
HARMLESS = {
    r"(base_model\.)?logit_scale": "the temperature belongs to the losses",
    r"(text_model|vision_model)\.embeddings\.position_ids": "the numbers 0, 1, 2 and so on",
    r"(base_model\.)?(input_resolution|context_length|vocab_size)": "sizes in OpenAI's archives",
    r"(text\.)?attn_mask": "the causal mask, which the text tower makes itself",
    r"(base_model\.)?visual\..*\.num_batches_tracked": "a counter of the batch normalisation",
}


@dataclass(frozen=True)
class Entry:
    """One of their arrays, and the arrays of ours in it."""

    theirs: str
    ours: tuple[str, ...]
    axes: tuple[int, ...] | None

    def split(self, array: np.ndarray) -> list[np.ndarray]:
        """Our arrays, cut from theirs."""
        parts = np.split(array, len(self.ours))
        return [part if self.axes is None else part.transpose(self.axes) for part in parts]

    def join(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Their array, joined from ours."""
        if self.axes is not None:
            arrays = [array.transpose(np.argsort(self.axes)) for array in arrays]
        return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]

    def our_shape(self, shape: ArrayShape) -> ArrayShape | None:
        """Shape of each of our arrays, from the shape of theirs; None if impossible."""
        if len(self.ours) > 1:
            if not shape or shape[0] % len(self.ours):
                return None
            shape = (shape[0] // len(self.ours), *shape[1:])
        if self.axes is None:
            return shape
        return tuple(shape[axis] for axis in self.axes) if len(shape) == len(self.axes) else None

    def their_shape(self, shape: ArrayShape) -> ArrayShape:
        """Shape of their array, from the shape of each of ours."""
        if self.axes is not None:
            shape = tuple(shape[axis] for axis in np.argsort(self.axes))
        return (shape[0] * len(self.ours), *shape[1:]) if len(self.ours) > 1 else shape


def identity(names: Iterable[str]) -> list[Entry]:
    """Entries of a file with our own names."""
    return [Entry(name, (name,), None) for name in names]


def entries_of(names: Iterable[str], table: Sequence[Row]) -> list[Entry]:
    """Find each of our names in a table, for export or as the contents expected of a file.

    Raises:
        ValueError: a name is not in the table.
    """
    entries = {}
    for name in names:
        for row in table:
            match = next((m for ours in row.ours if (m := _match(ours, name))), None)
            if match:
                entry = _entry(row, match)
                entries[entry.theirs] = entry
                break
        else:
            raise ValueError(f"this layout has no place for {name}")
    return list(entries.values())


def found_shapes(shapes: Mapping[str, ArrayShape], table: Sequence[Row]) -> dict[str, ArrayShape]:
    """Shapes of our arrays by our names, for those in a file."""
    found = {}
    for name, shape in shapes.items():
        for row in table:
            if match := _match(row.theirs, name):
                entry = _entry(row, match)
                if (ours := entry.our_shape(shape)) is not None:
                    found.update(dict.fromkeys(entry.ours, ours))
                break
    return found


def _match(pattern: str, name: str) -> re.Match | None:
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"(\d+)"), name)


def _entry(row: Row, match: re.Match) -> Entry:
    def fill(pattern: str) -> str:
        return pattern.replace("*", match[1]) if "*" in pattern else pattern

    return Entry(fill(row.theirs), tuple(fill(ours) for ours in row.ours), row.axes)
