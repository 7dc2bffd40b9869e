"""Convert weights to Hugging Face's layout or to one AIMA file, or verify a CLIP's."""

import argparse
import pathlib
import sys
from collections.abc import Callable
from typing import get_args

import numpy as np

from aima_jax import cli
from aima_jax.checkpoint import is_run, load_model
from aima_jax.convert.export import is_aima, read_aima, restore, save_aima
from aima_jax.convert.huggingface import save_clip, verify
from aima_jax.convert.load import load_clip, load_irra
from aima_jax.convert.pytorch import save_pytorch, save_submission
from aima_jax.convert.weights import is_safetensors, open_weights
from aima_jax.files import user_path
from aima_jax.models.config import Activation

_CLIP_SOURCE = "run, checkpoint, AIMA file, Hugging Face id, or a folder or file with a CLIP"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `aima convert`."""
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(
        convert: Callable[[argparse.Namespace], None], name: str, text: str, source: str, more=""
    ) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=f"{text}. {more}".strip())
        one.set_defaults(convert=convert)
        one.add_argument("source", help=source)
        return one

    to_folder = command(
        _to_huggingface,
        "huggingface",
        "write a CLIP as a folder that transformers.CLIPModel.from_pretrained loads",
        _CLIP_SOURCE,
        "transformers supports vision transformers only on square images: a run at 384 × 128 or "
        "96 × 48 pixels, as in every config here, cannot be written this way; aima convert aima "
        "writes any model to one file, which aima_jax.load and --config.weights read.",
    )
    to_folder.add_argument("folder", help="where to write")
    to_folder.add_argument(
        "--temperature",
        type=float,
        default=0.01,
        help="of the similarities, which transformers stores (%(default)s, as in OpenAI's)",
    )
    to_file = command(
        _to_aima,
        "aima",
        "write a whole AIMA model as one safetensors file",
        "run, checkpoint, or a checkpoint from IRRA's code",
    )
    to_file.add_argument("file", help="where to write, ending in .safetensors")
    to_file.add_argument(
        "--image_size",
        nargs=2,
        type=int,
        default=(384, 128),
        metavar=("HEIGHT", "WIDTH"),
        help="image size of an IRRA checkpoint, in pixels (384 128)",
    )
    to_file.add_argument(
        "--patch_stride", type=int, help="its patch stride, in pixels (the patch size)"
    )
    for one in (to_folder, to_file):
        one.add_argument(
            "--trust_weights", action="store_true", help="open TorchScript, which can run code"
        )
        one.add_argument(
            "--activation", choices=get_args(Activation), help="of both towers, if no file says"
        )
        for tower in ("vision", "text"):
            help_text = f"attention heads of the {tower} tower, if no file says"
            one.add_argument(f"--{tower}_heads", type=int, help=help_text)
    to_pytorch = command(
        _to_pytorch,
        "pytorch",
        "write both towers for PyTorch: one readable file of code, one of weights",
        "run, checkpoint, or AIMA file",
    )
    to_pytorch.add_argument("folder", help="where to write")
    to_upar = command(
        _to_upar,
        "upar",
        "write a submission to the UPAR Challenge 2027, task 2",
        "run, checkpoint, or AIMA file, trained on upar",
    )
    to_upar.add_argument("file", help="where to write, ending in .zip")
    command(
        _verify,
        "verify",
        "compare a CLIP with transformers' own, from pictures on, stage by stage; needs PyTorch",
        "Hugging Face id, as openai/clip-vit-base-patch16, or a folder in that layout",
    )
    command(
        _convert_checkpoints,
        "checkpoint",
        "make checkpoints of format 1 readable, in place",
        "run or checkpoint",
        "Its dataset must be prepared, or its raw files must be available, as for training.",
    )


def run(options: argparse.Namespace) -> None:
    """Run a subcommand.

    Raises:
        ValueError, OSError: the user can fix the problem; the message says how.
    """
    options.convert(options)


def _to_huggingface(options: argparse.Namespace) -> None:
    path = user_path(options.source)
    if is_run(path):
        clip = load_model(path).model.clip
    elif _is_aima(path):
        clip = read_aima(open_weights(path)).clip
    else:
        _, clip = load_clip(options.source, image_size=None, **_given(options))
    save_clip(clip, options.folder, temperature=options.temperature)
    print(f"written to {options.folder}")


def _to_aima(options: argparse.Namespace) -> None:
    if not options.file.endswith(".safetensors"):
        raise ValueError(f"{options.file}: expected a name that ends in .safetensors")
    if is_run(options.source):
        save_aima(load_model(options.source), options.file)
    else:
        size, stride = tuple(options.image_size), options.patch_stride
        given = _given(options)
        _, model = load_irra(options.source, image_size=size, patch_stride=stride, **given)
        save_aima(model, options.file)
    print(f"written to {options.file}")


def _to_pytorch(options: argparse.Namespace) -> None:
    save_pytorch(restore(options.source), options.folder)
    print(f"written to {options.folder}")


def _to_upar(options: argparse.Namespace) -> None:
    from tfds_builders.upar.schema import FILE_NAMES, SCHEMA

    if not options.file.endswith(".zip"):
        raise ValueError(f"{options.file}: expected a name that ends in .zip")
    restored = restore(options.source)
    if restored.schema != SCHEMA:
        raise ValueError(
            f"{options.source} has the attributes of {restored.schema.name!r}; a submission needs "
            "UPAR's: train with configs/upar.py"
        )
    save_submission(restored, options.file, columns=FILE_NAMES)
    print(f"written to {options.file}")


def _convert_checkpoints(options: argparse.Namespace) -> None:
    from aima_jax.convert.format1 import convert_checkpoints  # it needs all of training

    for line in convert_checkpoints(options.source):
        print(line)


def _verify(options: argparse.Namespace) -> None:
    differences = verify(options.source)
    for stage, difference in differences.items():
        print(f"{stage:<20} {difference:.1e}")
    worst = np.max(list(differences.values()))  # a NaN counts as the worst
    if not worst <= 1e-4:
        raise ValueError(f"{options.source}: stages differ from transformers' by up to {worst:.1e}")
    print(f"all stages agree with transformers' to {worst:.1e} of their largest value")


def _given(options: argparse.Namespace) -> dict:
    names = ("trust_weights", "activation", "vision_heads", "text_heads")
    return {name: getattr(options, name) for name in names}


def _is_aima(path: pathlib.Path) -> bool:
    """Whether the file was written by `save_aima`."""
    return path.is_file() and is_safetensors(path) and is_aima(open_weights(path))


if __name__ == "__main__":
    sys.exit(cli.main(["convert", *sys.argv[1:]]))
