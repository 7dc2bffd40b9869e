"""Find the pictures of a folder that match attributes or words best."""

import argparse
import sys

from aima_jax import cli
from aima_jax.data.pictures import open_picture
from aima_jax.evaluation.report import draw_ranking, save_picture
from aima_jax.files import user_path
from aima_jax.search.gallery import index_folder
from aima_jax.search.person_search import PersonSearch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `aima search` takes."""
    parser.add_argument(
        "query", help='attributes, as "gender=female,upper_color=red,backpack", or free words'
    )
    parser.add_argument("--workdir", required=True, help="folder of a run, or of one checkpoint")
    parser.add_argument("--images", required=True, help="folder with pictures, folders in it too")
    parser.add_argument("--k", type=int, default=10, help="how many pictures to find (%(default)s)")
    parser.add_argument("--out", help="PNG file to draw the pictures found in")
    parser.add_argument("--index", help="file that keeps the features for the next search")


def run(options: argparse.Namespace) -> None:
    """Search, and print and draw what is found.

    Raises:
        ValueError, FileNotFoundError: an option is wrong, or a file.
    """
    if options.k < 1:
        raise ValueError(f"--k={options.k}; expected 1 or more")
    for name in ("out", "index"):
        if text := getattr(options, name):
            setattr(options, name, file := user_path(text))
            if not file.parent.is_dir():
                raise FileNotFoundError(f"--{name}={file}: there is no folder {file.parent}")
    search = PersonSearch.load(options.workdir)
    sentence = search.sentence(options.query)  # before the pictures: a wrong query ends it here
    gallery, left_out = index_folder(search, options.images, index=options.index)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    print(f"{sentence}\nin {len(gallery.names)} pictures of {options.images}:")
    ranked = search.rank(options.query, gallery.features, options.k)
    for place, (index, score) in enumerate(ranked, start=1):
        print(f"{place:4}  {score:z6.3f}  {gallery.names[index]}")
    if options.out:
        folder = user_path(options.images)
        pictures = [open_picture(folder / gallery.names[index]) for index, _ in ranked]
        picture = draw_ranking(sentence, pictures, scores=[score for _, score in ranked])
        save_picture(picture, options.out)
        print(f"drawn in {options.out}")


if __name__ == "__main__":
    sys.exit(cli.main(["search", *sys.argv[1:]]))
