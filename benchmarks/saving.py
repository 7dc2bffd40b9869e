"""What saving costs the step loop: the same steps with a save among them and without, by turns.

    python benchmarks/saving.py [--steps=40] [--rounds=6]

Steps of the small model of configs/synthetic.py on random pictures. A save starts within the first
steps of a round, as it does in training, and must be complete when the round ends; rounds with and
without one take turns. The median round of each kind counts. From the seconds that a save adds
follows its share of the time at the default interval, `config.checkpoint_every_minutes`.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from aima_jax.checkpoint import Metadata
from aima_jax.sharding import batch_sharding, put_rows
from aima_jax.training.saving import Saver
from aima_jax.training.setup import open_run
from configs import synthetic
from tfds_builders.prepare import prepare

DATASET = "synthetic_pedestrians/train64-val16-test32-seed0"


class Loop:
    """The jitted step of a run, taken again and again on one batch."""

    def __init__(self, folder: pathlib.Path):
        config = synthetic.get_config()
        config.dataset, config.data_dir = DATASET, str(folder / "data")
        prepare(DATASET, data_dir=config.data_dir)
        self.minutes = config.checkpoint_every_minutes
        self.run = open_run(config, folder / "run")
        self.state = self.run.state
        split = self.run.problem.train
        rows = np.arange(config.batch_size)
        batch = {
            "image": split.images(rows, config.image_size),
            "category": self.run.problem.category[rows],
        }
        self.batch = put_rows(batch, batch_sharding(self.run.mesh))
        self.batch["request"] = jnp.zeros(self.run.mesh.size, jnp.int32)

    def take(self, steps: int) -> None:
        for _ in range(steps):
            self.state, metrics = self.run.step(self.state, self.batch, self.run.table)
            float(metrics["loss"])  # as the loop of training reads it


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=40, help="in a round")
    parser.add_argument("--rounds", type=int, default=6, help="of each kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        loop = Loop(folder)
        description: Metadata = loop.run.metadata
        saver = Saver(folder / "run", description)
        times: dict[bool, list[float]] = {False: [], True: []}
        started = []
        loop.take(5)
        for turn in range(2 * arguments.rounds + 2):
            saves = turn % 2 == 1
            begin = time.perf_counter()
            if saves:
                saver.save(turn, loop.state)
                started.append(time.perf_counter() - begin)
            loop.take(arguments.steps)
            saver.wait()
            times[saves].append(time.perf_counter() - begin)
        saver.close()
        size = sum(array.nbytes for array in jax.tree.leaves(loop.state))
    without, with_save = (statistics.median(times[kind][1:]) for kind in (False, True))
    added, interval = with_save - without, 60 * loop.minutes
    print(f"state of {size / 1e6:.0f} MB on {jax.device_count()} × {jax.devices()[0].device_kind}")
    print(f"{arguments.steps} steps: {without:.2f} s without a save, {with_save:.2f} s with one")
    print(f"the loop stands still for {statistics.median(started[1:]):.3f} s while a save starts")
    print(
        f"a save adds {added:.2f} s: {added / interval:.2%} of the {interval:.0f} s between saves, "
        f"steps/s with saving ÷ without: {interval / (interval + added):.4f}"
    )


if __name__ == "__main__":
    main()
