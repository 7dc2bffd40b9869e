"""The command line `aima`: all that is done beside the runs of run.py."""

import argparse
import importlib
import io
import os
import sys

# By subcommand: its module, which offers `add_arguments(parser)` and `run(options)` and is imported
# only when it is asked for, and what it does.
_COMMANDS = {
    "prepare": ("tfds_builders.prepare", "prepare a dataset: raw files in, checked records out"),
    "describe": ("tfds_builders.describe", "describe a prepared dataset in numbers and a picture"),
    "convert": ("aima_jax.convert.__main__", "convert weights, or verify those of a CLIP"),
    "index": ("aima_jax.search.index", "make or extend a gallery from the pictures of a folder"),
    "search": ("aima_jax.search.__main__", "find the pictures of a folder that match a query best"),
}


def main(arguments: list[str] | None = None) -> int:
    """Carry out a subcommand; return its exit status, 2 for what a person can set right."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="aima", description=__doc__, epilog="Training and evaluation are run.py's."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, (module, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if arguments[:1] == [name]:
            imported = importlib.import_module(module)
            imported.add_arguments(command)
            command.set_defaults(run=imported.run)
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be valid text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        print(str(interruption) or "interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
