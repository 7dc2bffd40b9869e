"""Find the pictures of a folder or a gallery that match attributes, words or pictures best."""

import argparse
import contextlib
import json
import sys
import tempfile
from typing import Any

from aima_jax import cli
from aima_jax.data.pictures import open_picture
from aima_jax.evaluation.report import draw_ranking, save_picture
from aima_jax.files import user_path
from aima_jax.search.gallery import Gallery
from aima_jax.search.index import index_folder
from aima_jax.search.person_search import PersonSearch
from aima_jax.search.request import DEPTH, Found, find_pictures, parse_request


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `aima search` takes."""
    parser.add_argument(
        "query",
        nargs="*",
        help='attributes, as "gender=female,upper_color=red,backpack", or words; "hat^2" weighs 2',
    )
    parser.add_argument("--workdir", required=True, help="a run, a checkpoint or an exported file")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--images", help="folder with pictures, folders in it too")
    where.add_argument("--gallery", help="gallery that aima index has made of a folder")
    parser.add_argument("--without", action="append", default=[], help="what is not wanted")
    parser.add_argument("--like", action="append", default=[], help="picture to be like")
    parser.add_argument("--where", default="", help='filter on facts: "camera in (1, 2)"')
    parser.add_argument("--above", type=float, default=0.0, help="least probability of attributes")
    parser.add_argument("--k", type=int, default=10, help="how many pictures to find (%(default)s)")
    parser.add_argument(
        "--depth", type=int, default=DEPTH, help="candidates scored exactly (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print all that is known, as JSON")
    parser.add_argument("--out", help="PNG file to draw the pictures found in")


def run(options: argparse.Namespace) -> None:
    """Search, and print and draw what is found; where a pipe reads, print paths alone.

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
    request = parse_request(  # before the pictures: a wrong query ends it here
        search,
        options.query,
        without=options.without,
        like=[user_path(path) for path in options.like],
        where=options.where,
        above=options.above,
    )
    with contextlib.ExitStack() as stack:
        if options.gallery:
            gallery = Gallery(options.gallery)
        else:
            place = stack.enter_context(tempfile.TemporaryDirectory())
            gallery, left_out = index_folder(search, options.images, place)
            for line in left_out:
                print(f"left out: {line}", file=sys.stderr)
        found = find_pictures(search, gallery, request, options.k, depth=options.depth)
        pictures = len(gallery)
    if options.json:
        rows = [{"path": str(gallery.folder / each.name), **_plain(each)} for each in found]
        said = {"asked": request.text, "where": request.where, "pictures": pictures, "found": rows}
        print(json.dumps(said, indent=1))
    elif sys.stdout.isatty():
        print(f"{request.text}\nin {pictures} pictures of {gallery.folder}:")
        for each in found:
            facts = " ".join(f"{column}={value}" for column, value in each.facts.items())
            print(f"{each.rank:4}  {each.score:z6.3f}  {each.name}  {facts}".rstrip())
    else:
        for each in found:
            print(gallery.folder / each.name)
    if options.out and found:
        drawn = [open_picture(gallery.folder / each.name) for each in found]
        picture = draw_ranking(request.text, drawn, scores=[each.score for each in found])
        save_picture(picture, options.out)
        print(f"drawn in {options.out}", file=sys.stderr)


def _plain(found: Found) -> dict[str, Any]:
    """What JSON says of a picture."""
    return {name: value for name, value in found._asdict().items() if name != "feature"}


if __name__ == "__main__":
    sys.exit(cli.main(["search", *sys.argv[1:]]))
