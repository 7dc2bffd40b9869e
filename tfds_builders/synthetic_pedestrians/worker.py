"""A process that renders every n-th picture of a split onto stdout."""

import signal
import sys

from tfds_builders.synthetic_pedestrians.parallel import LENGTH
from tfds_builders.synthetic_pedestrians.splits import Size, plan


def main(size: str, split: str, first: str, step: str) -> None:
    # Ends quietly when nobody reads the pipe any more.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    pictures = plan(Size.parse(size))[split]
    for index in range(int(first), pictures.pictures, int(step)):
        data = pictures.render(index)
        sys.stdout.buffer.write(LENGTH.pack(len(data)) + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
