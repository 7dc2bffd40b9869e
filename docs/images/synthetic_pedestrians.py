"""Show what rendered pictures look like: a few of each of some test categories.

python docs/images/synthetic_pedestrians.py docs/images/synthetic_pedestrians.png
"""

import argparse
import textwrap

from PIL import Image, ImageDraw, ImageFont

from aima_jax.data.pictures import open_picture
from aima_jax.text import PromptTemplate
from tfds_builders.synthetic_pedestrians.schema import SCHEMA, VIEWS
from tfds_builders.synthetic_pedestrians.splits import Size, SplitPlan, plan
from tfds_builders.synthetic_pedestrians.wording import WORDING

_PICTURES = 6  # of a category
_HEIGHT, _WIDTH = 150, 72
_GAP, _CAPTION = 4, 32
_FONT_SIZE, _CAPTION_WIDTH = 11, 84  # pixels, characters


def contact_sheet(split: SplitPlan, rows: int, columns: int) -> Image.Image:
    """Pictures of `rows` × `columns` categories, under their sentences."""
    wide, high = _PICTURES * (_WIDTH + _GAP) + 3 * _GAP, _CAPTION + _HEIGHT + _GAP
    sheet = Image.new("RGB", (columns * wide, rows * high), "white")
    for block, pictures in enumerate(_categories(split, rows * columns)):
        row, column = divmod(block, columns)
        sheet.paste(_strip(split, pictures), (column * wide + _GAP, row * high))
    return sheet


def _categories(split: SplitPlan, count: int) -> list[list[int]]:
    """Pictures of the first categories that have enough, the views by turns.

    Raises:
        ValueError: too few categories have.
    """
    pictures: dict[str, dict[bytes, list[int]]] = {view: {} for view in VIEWS}
    for index in range(split.pictures):
        attributes = split.assignment(index).attributes
        view = SCHEMA.decode(attributes)["view"]
        pictures[view].setdefault(attributes.tobytes(), []).append(index)
    enough = [
        [found[:_PICTURES] for found in pictures[view].values() if len(found) >= _PICTURES]
        for view in VIEWS
    ]
    by_turns = [found for turn in zip(*enough, strict=False) for found in turn]
    if len(by_turns) < count:
        raise ValueError(
            f"{len(by_turns)} categories have {_PICTURES} pictures; expected {count}: ask for "
            "fewer rows or a larger --size"
        )
    return by_turns[:count]


def _strip(split: SplitPlan, pictures: list[int]) -> Image.Image:
    """Pictures of one category side by side, its sentence above."""
    strip = Image.new("RGB", (_PICTURES * (_WIDTH + _GAP), _CAPTION + _HEIGHT), "white")
    sentence = PromptTemplate(SCHEMA, "sentence", WORDING).render(
        split.assignment(pictures[0]).attributes
    )
    caption = textwrap.fill(sentence.text, _CAPTION_WIDTH)
    font = ImageFont.load_default(_FONT_SIZE)
    ImageDraw.Draw(strip).multiline_text((0, 2), caption, "black", font, spacing=1)
    for number, index in enumerate(pictures):
        image = open_picture(split.render(index))
        image = image.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)
        strip.paste(image, (number * (_WIDTH + _GAP), _CAPTION))
    return strip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", help="the PNG file to write")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--columns", type=int, default=2)
    parser.add_argument("--size", default=Size().name, help="as a config of the dataset")
    args = parser.parse_args()
    sheet = contact_sheet(plan(Size.parse(args.size))["test"], args.rows, args.columns)
    # A palette makes the file a third as large, and dithering hides it.
    palette = sheet.quantize(256, Image.Quantize.MAXCOVERAGE)
    sheet.quantize(palette=palette).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
