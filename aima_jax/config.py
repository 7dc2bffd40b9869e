"""Checks the values of a config before anything starts."""

import math
from types import UnionType
from typing import Any

from ml_collections import ConfigDict

PROTOCOLS = ("standard", "sal", "asmr")
LOSSES = ("info_nce", "sdm", "identity", "map", "attribute_iou")

_CHOICES = {
    "dtype": ("auto", "float32", "bfloat16"),
    "on_nonfinite": ("stop", "skip"),
    "on_save_error": ("stop", "continue"),
    "selection": ("validation", "latest", "test"),
    "model.position_resize": ("bilinear", "bicubic"),
    "model.remat": ("none", "dots", "full"),
    "model.activation": ("", "quick_gelu", "gelu"),
    "loss.attribute_iou_target": ("softmax", "normalized"),
    "data.cache": ("none", "host", "device"),
}
_TINY = 1e-30  # the smallest value of what must be over 0
# Least and most; where the least is a whole number, the value must be one.
_RANGES = {
    "seed": (0, 2**31 - 1),
    "batch_size": (1, math.inf),
    "micro_batch_size": (0, math.inf),
    "epochs": (1, math.inf),
    "validation_categories": (0, math.inf),
    "mask_rate": (0.0, 1),
    "mask_capacity": (1, math.inf),
    "eval_batch_size": (1, math.inf),
    "eval_every_epochs": (_TINY, math.inf),
    "log_every_steps": (1, math.inf),
    "checkpoint_every_minutes": (0.0, math.inf),
    "checkpoint_every_steps": (0, math.inf),
    "data.threads": (0, 1024),
    "data.prefetch": (1, 1024),
    "model.patch_stride": (0, 1024),
    "model.fusion_depth": (1, 1024),
    "model.vision_heads": (0, 1024),
    "model.text_heads": (0, 1024),
    **{f"loss.{name}": (0.0, math.inf) for name in LOSSES},
    "loss.temperature": (_TINY, math.inf),
    "loss.attribute_iou_temperature": (_TINY, math.inf),
    "loss.chunk_size": (0, math.inf),
    "augment.flip": (0.0, 1),
    "augment.pad": (0, 1024),
    "augment.erase": (0.0, 1),
    "optimizer.learning_rate": (0.0, math.inf),
    "optimizer.warmup_epochs": (0.0, math.inf),
    "optimizer.warmup_factor": (0.0, 1),
    "optimizer.beta1": (0.0, 1),
    "optimizer.beta2": (0.0, 1),
    "optimizer.epsilon": (_TINY, math.inf),
    "optimizer.gradient_clip": (0.0, math.inf),
}


def check(config: ConfigDict) -> None:
    """Checks every choice and range.

    Raises:
        ValueError: names all fields that are wrong, and what they may be.
    """
    wrong = []
    for name, choices in _CHOICES.items():
        if _at(config, name) not in choices:
            wrong.append(f"config.{name}={_at(config, name)!r} must be one of {', '.join(choices)}")
    for name, (low, high) in _RANGES.items():
        value = _at(config, name)
        kind = int if isinstance(low, int) else int | float
        sound = isinstance(value, kind) and not isinstance(value, bool)
        if not (sound and low <= value <= high and value < math.inf):
            whole = "a whole number, " if kind is int else ""
            least = "over 0" if low == _TINY else f"{low:g} or more"
            most = "" if high == math.inf else f", {high} at most"
            wrong.append(f"config.{name}={value!r} must be {whole}{least}{most}")
    if not any(_at(config, f"loss.{name}") for name in LOSSES):
        wrong.append(f"all losses are switched off: give one of {', '.join(LOSSES)} a weight")
    size = _at(config, "image_size")
    if not _is_pair(size, int, 8, 4096):
        wrong.append(f"config.image_size={size!r} must be (height, width), each 8 to 4096")
    area = _at(config, "augment.erase_area")
    if not (_is_pair(area, int | float, 0, 1) and area[0] <= area[1]):
        wrong.append(f"config.augment.erase_area={area!r} must be (least, most), each 0 to 1")
    protocols = _at(config, "protocols")
    if not isinstance(protocols, tuple | list) or not all(p in PROTOCOLS for p in protocols):
        wrong.append(f"config.protocols={protocols!r} must be some of {', '.join(PROTOCOLS)}")
    profile = _at(config, "profile")
    if profile != "":
        try:
            profiled_steps(profile)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))


def profiled_steps(profile: str) -> tuple[int, int]:
    """Returns the first and the last step that `config.profile` names.

    Raises:
        ValueError: it is not of the form "100:105".
    """
    first, _, last = str(profile).partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise ValueError(f'config.profile={profile!r} must be two steps, like "100:105"')
    return int(first), int(last)


def _is_pair(value: Any, kind: type | UnionType, low: float, high: float) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(part, kind) and low <= part <= high for part in value)
    )


def _at(config: ConfigDict, name: str) -> Any:
    """The value of a field, None where it is missing."""
    for part in name.split("."):
        config = config.get(part) if isinstance(config, ConfigDict) else None
    return config.to_dict() if isinstance(config, ConfigDict) else config
