"""Find the pictures of a folder that match attributes or words best."""

import argparse
import contextlib
import sys
import tempfile

from aima_jax import cli
from aima_jax.data.pictures import open_picture
from aima_jax.evaluation.report import draw_ranking, save_picture
from aima_jax.files import user_path
from aima_jax.search.gallery import Gallery
from aima_jax.search.index import index_folder
from aima_jax.search.person_search import PersonSearch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `aima search` takes."""
    parser.add_argument(
        "query", help='attributes, as "gender=female,upper_color=red,backpack", or free words'
    )
    parser.add_argument("--workdir", required=True, help="a run, a checkpoint or an exported file")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--images", help="folder with pictures, folders in it too")
    where.add_argument("--gallery", help="gallery that aima index has made of a folder")
    parser.add_argument("--k", type=int, default=10, help="how many pictures to find (%(default)s)")
    parser.add_argument("--out", help="PNG file to draw the pictures found in")


def run(options: argparse.Namespace) -> None:
    """Search, and print and draw what is found.

    Raises:
        ValueError, FileNotFoundError: an option is wrong, or a file.
    """
    if options.k < 1:
        raise ValueError(f"--k={options.k}; expected 1 or more")
    if options.out:
        options.out = user_path(options.out)
        if not options.out.parent.is_dir():
            raise FileNotFoundError(f"--out={options.out}: there is no folder {options.out.parent}")
    search = PersonSearch.load(options.workdir)
    sentence = search.sentence(options.query)  # before the pictures: a wrong query ends it here
    with contextlib.ExitStack() as stack:
        if options.gallery:
            gallery = Gallery(options.gallery)
            gallery.require_model(search.model_id)
        else:
            place = stack.enter_context(tempfile.TemporaryDirectory())
            gallery, left_out = index_folder(search, options.images, place)
            for line in left_out:
                print(f"left out: {line}", file=sys.stderr)
        rows = gallery.rows(known.key for known in gallery.known().values() if not known.unreadable)
    print(f"{sentence}\nin {len(rows.names)} pictures of {gallery.folder}:")
    ranked = search.rank(options.query, rows.features, options.k)
    for place, (index, score) in enumerate(ranked, start=1):
        print(f"{place:4}  {score:z6.3f}  {rows.names[index]}")
    if options.out:
        pictures = [open_picture(gallery.folder / rows.names[index]) for index, _ in ranked]
        picture = draw_ranking(sentence, pictures, scores=[score for _, score in ranked])
        save_picture(picture, options.out)
        print(f"drawn in {options.out}")


if __name__ == "__main__":
    sys.exit(cli.main(["search", *sys.argv[1:]]))
