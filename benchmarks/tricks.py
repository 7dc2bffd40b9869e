"""What each trick of the training step gains: a step with it beside one without.

    python benchmarks/tricks.py                      # those of a CPU, measured: ViT-B/16, batch 8
    python benchmarks/tricks.py branch --rounds=5    # one of them
    python benchmarks/tricks.py --topology=H100      # those of a GPU, as its compiler counts

Measured: both take turns, each in a process of its own, as benchmarks/train_step.py has it; the
median of the turns after the first counts, and the highest resident set. Where there is no such
device, the step is compiled for one (benchmarks/compile_for.py), and what counts is the temporary
memory.
"""

import argparse
import statistics
from collections.abc import Callable

import jax.numpy as jnp
from contest import Answer, Contender

import aima_jax.training.step as training_step_module
from aima_jax.models import attention, cpu

# By platform and name: what it does, in the words of docs/performance.md.
TRICKS = {
    "cpu": {
        "rows": "products of two matrices",
        "checkpoint": "what is cheap computed again",
        "branch": "Adam in a branch",
        "allocator": "memory that is kept",
    },
    "cuda": {"cudnn": "attention by cuDNN"},
}


def take_out(name: str) -> None:
    """Replace a trick by the plain form, in this process."""
    import ours  # which imports JAX's backend

    if name == "rows":
        cpu.matmul = jnp.matmul
    elif name == "checkpoint":
        cpu.checkpoint = lambda function, *, policy: function
    elif name == "branch":
        only_if = training_step_module.only_if
        training_step_module.only_if = lambda accept, update, old, _: only_if(
            accept, update, old, None
        )
    elif name == "allocator":
        ours.keep_memory = lambda: None
    elif name == "cudnn":
        attention.has_cudnn_attention = lambda *_: False


def training_step(without: str, batch: int) -> Callable[[], Answer]:
    """Make our step ready, without a trick if one is named."""
    import ours

    take_out(without)
    return ours.training_step(batch, batch, "float32", "none", 0, 1)


def measure(name: str, batch: int, rounds: int) -> dict[str, Answer]:
    """Take steps in turn with and without a trick."""
    place = "tricks:training_step"
    with (
        Contender(place, without="", batch=batch) as with_it,
        Contender(place, without=name, batch=batch) as without,
    ):
        turns = [(with_it.turn(), without.turn()) for _ in range(1 + rounds)]
    return {
        form: {
            "seconds": statistics.median(answer["seconds"] for answer in answers[1:]),
            "GB": max(answer["bytes"] for answer in answers) / 1e9,
            "temporary GB": answers[0]["temporary"] / 1e9,
        }
        for form, answers in zip(("with", "without"), zip(*turns, strict=True), strict=True)
    }


def count(topology: str, name: str, batch: int) -> dict[str, Answer]:
    """Compile the step for a device that is not here, with and without a trick."""
    found = {}
    for form, without in (("with", ""), ("without", name)):
        with Contender("tricks:compiled", topology=topology, without=without, batch=batch) as one:
            found[form] = one.turn()
    return found


def compiled(topology: str, without: str, batch: int) -> Callable[[], Answer]:
    """Compile the step; return what the compiler counts."""
    import compile_for

    take_out(without)
    program, _ = compile_for.compile_step(
        compile_for.parse([topology, f"--batch={batch}"]),
        compile_for.make_mesh(devices=compile_for.devices_of(topology)),
    )
    memory = program.memory_analysis()
    assert memory is not None
    numbers = {"temporary GB": memory.temp_size_in_bytes / 1e9}
    return lambda: numbers


def main() -> None:
    """Measure or count, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [name for tricks in TRICKS.values() for name in tricks]
    parser.add_argument("names", nargs="*", help=f"of {', '.join(names)}; all of the platform")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each after the first")
    parser.add_argument("--topology", help="a device that is not here, as H100")
    args = parser.parse_args()
    platform = "cuda" if args.topology else "cpu"
    for name in args.names or TRICKS[platform]:
        if name not in TRICKS[platform]:
            parser.error(
                f"no trick {name!r} of {platform}; there are {', '.join(TRICKS[platform])}"
            )
        if args.topology:
            found = count(args.topology, name, args.batch)
        else:
            found = measure(name, args.batch, args.rounds)
        print(f"{name}: {TRICKS[platform][name]}")
        for unit, value in found["with"].items():
            plain = found["without"][unit]
            ratio = f"{value / plain:.2f} ×" if plain else ""
            print(f"  {unit:<20}{value:>8.2f} with it{plain:>8.2f} without  {ratio}", flush=True)


if __name__ == "__main__":
    main()
