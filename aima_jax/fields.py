"""Check the values of a config before anything starts."""

import math
from collections.abc import Sequence
from types import UnionType
from typing import Any

from ml_collections import ConfigDict

from aima_jax.losses import LOSSES, POSITIVE

# The allowed values of a field, or the minimum and maximum of a number; if the minimum is an int,
# the value must be one.
_FIELDS = {
    "dtype": ("auto", "float32", "bfloat16"),
    "on_nonfinite": ("stop", "skip"),
    "on_save_error": ("stop", "continue"),
    "selection": ("validation", "latest", "test"),
    "model.position_resize": ("bilinear", "bicubic"),
    "model.remat": ("none", "dots", "full"),
    "model.activation": ("", "quick_gelu", "gelu"),
    "data.cache": ("none", "host", "device"),
    "seed": (0, 2**31 - 1),
    "batch_size": (1, math.inf),
    "micro_batch_size": (0, math.inf),
    "epochs": (1, math.inf),
    "validation_categories": (0, math.inf),
    "sentences.variants": (1, 4096),
    "sentences.varied": (0.0, 1),
    "sentences.partial": (0.0, 1),
    "sentences.absences": (0.0, 1),
    "sentences.templates": (0.0, 1),
    "sentences.synonyms": (0.0, 1),
    "sentences.order": (0.0, 1),
    "mask_rate": (0.0, 1),
    "mask_capacity": (1, math.inf),
    "eval_batch_size": (1, math.inf),
    "posterior_temperature": (0.005, math.inf),
    "eval_every_epochs": POSITIVE,
    "log_every_steps": (1, math.inf),
    "checkpoint_every_minutes": (0.0, math.inf),
    "checkpoint_every_steps": (0, math.inf),
    "data.threads": (0, 1024),
    "data.prefetch": (1, 1024),
    "model.patch_stride": (0, 1024),
    "model.fusion_depth": (1, 1024),
    "model.vision_heads": (0, 1024),
    "model.text_heads": (0, 1024),
    "loss.temperature": POSITIVE,
    "loss.labels": ("category", "agreement"),
    "loss.image_target": ("joint", "uniform"),
    "loss.chunk_size": (0, math.inf),
    "augment.flip": (0.0, 1),
    "augment.pad": (0, 1024),
    "augment.erase": (0.0, 1),
    "optimizer.learning_rate": (0.0, math.inf),
    "optimizer.warmup_epochs": (0.0, math.inf),
    "optimizer.warmup_factor": (0.0, 1),
    "optimizer.beta1": (0.0, 1),
    "optimizer.beta2": (0.0, 1),
    "optimizer.epsilon": POSITIVE,
    "optimizer.gradient_clip": (0.0, math.inf),
}
# Old field names, and their current names.
RENAMED = {
    **{f"loss.{name}": f"loss.{name}.weight" for name in LOSSES},
    "loss.multi_positive": "loss.info_nce.multi_positive",
    "loss.attribute_iou_temperature": "loss.attribute_iou.temperature",
    "loss.attribute_iou_target": "loss.attribute_iou.target",
}


def check_config(config: ConfigDict) -> None:
    """Check every choice and range.

    Raises:
        ValueError: fields are invalid; the message lists each with its allowed values.
    """
    old = [name for name in RENAMED if not isinstance(_at(config, name), dict | None)]
    wrong = [f"config.{name}={_at(config, name)!r} is config.{RENAMED[name]} now" for name in old]
    for name, allowed in (_FIELDS | _fields_of_losses()).items():
        value = _at(config, name)
        if not _is_allowed(value, allowed) and not name.startswith(tuple(f"{o}." for o in old)):
            wrong.append(f"config.{name}={value!r} must be {_in_words(allowed)}")
    if not old and not any(_at(config, f"loss.{name}.weight") for name in LOSSES):
        wrong.append(f"all losses are switched off: give one of {', '.join(LOSSES)} a weight")
    wrong += _sentences_that_do_not_fit(config)
    size = _at(config, "image_size")
    if not _are_numbers(size, 2, int, 8, 4096):
        wrong.append(f"config.image_size={size!r} must be (height, width), each 8 to 4096")
    for name, low in (("model.pixel_mean", -10), ("model.pixel_std", 1e-6)):
        value = _at(config, name)
        if value not in ((), []) and not _are_numbers(value, 3, int | float, low, 10):
            wrong.append(f"config.{name}={value!r} must be () or three numbers, {low} to 10")
    area = _at(config, "augment.erase_area")
    if not (_are_numbers(area, 2, int | float, 0, 1) and area[0] <= area[1]):
        wrong.append(f"config.augment.erase_area={area!r} must be (least, most), each 0 to 1")
    from aima_jax.evaluation.protocols import PROTOCOLS  # which itself checks configs

    protocols = _at(config, "protocols")
    listed = isinstance(protocols, tuple | list) and protocols
    if not listed or not all(name in PROTOCOLS for name in protocols):
        wrong.append(f"config.protocols={protocols!r} must be some of {', '.join(PROTOCOLS)}")
    profile = _at(config, "profile")
    if profile != "":
        try:
            profiled_steps(profile)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))


def profiled_steps(profile: object) -> tuple[int, int]:
    """Return the first and the last step in `config.profile`.

    Raises:
        ValueError: it does not have the form "100:105".
    """
    first, _, last = str(profile).partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise ValueError(f'config.profile={profile!r} must be two steps, like "100:105"')
    return int(first), int(last)


def _sentences_that_do_not_fit(config: ConfigDict) -> list[str]:
    """Losses and sentence settings that contradict each other."""
    wrong = []
    variants, varied, partial, weight, labels, info_nce, multi_positive = (
        _at(config, name)
        for name in (
            "sentences.variants",
            "sentences.varied",
            "sentences.partial",
            "loss.partial.weight",
            "loss.labels",
            "loss.info_nce.weight",
            "loss.info_nce.multi_positive",
        )
    )
    if varied and variants == 1:
        wrong.append(f"config.sentences.varied={varied!r} needs config.sentences.variants over 1")
    if weight and (variants == 1 or not partial):
        wrong.append(
            f"config.loss.partial.weight={weight!r} needs config.sentences.variants over 1 and "
            "config.sentences.partial over 0"
        )
    if labels == "agreement" and info_nce and not multi_positive and varied and partial:
        wrong.append(
            "config.loss.labels='agreement' needs config.loss.info_nce.multi_positive=True, since "
            "InfoNCE sees partial sentences, which agree with others' images as well"
        )
    return wrong


def renamed_flags(argv: Sequence[str]) -> str:
    """Return a message about flags such as "--config.loss.map=0" with an old field name."""
    names = [argument.lstrip("-").split("=")[0].removeprefix("config.") for argument in argv]
    return "; ".join(f"config.{n} is config.{RENAMED[n]} now" for n in names if n in RENAMED)


def _fields_of_losses() -> dict[str, tuple]:
    """The fields of every loss in the table, and their allowed values."""
    fields: dict[str, tuple] = {}
    for name, loss in LOSSES.items():
        fields[f"loss.{name}.weight"] = (0.0, math.inf)
        fields |= {f"loss.{name}.{option}": allowed for option, allowed in loss.options.items()}
    return fields


def _is_range(allowed: tuple) -> bool:
    return all(isinstance(x, int | float) and not isinstance(x, bool) for x in allowed)


def _is_allowed(value: Any, allowed: tuple) -> bool:
    if not _is_range(allowed):
        return any(type(value) is type(x) and value == x for x in allowed)
    low, high = allowed
    kind = int if isinstance(low, int) else int | float
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    return is_number and low <= value <= high and value < math.inf


def _in_words(allowed: tuple) -> str:
    if not _is_range(allowed):
        return f"one of {', '.join(map(str, allowed))}"
    low, high = allowed
    whole = "a whole number, " if isinstance(low, int) else ""
    least = "over 0" if allowed == POSITIVE else f"{low:g} or more"
    return f"{whole}{least}" + ("" if high == math.inf else f", {high} at most")


def _are_numbers(
    value: Any, count: int, kind: type | UnionType, low: int | float, high: int | float
) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == count
        and all(isinstance(part, kind) and low <= part <= high for part in value)
    )


def _at(config: ConfigDict, name: str) -> Any:
    """The value of a field, None if it is missing."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, ConfigDict) else None
    return value.to_dict() if isinstance(value, ConfigDict) else value
