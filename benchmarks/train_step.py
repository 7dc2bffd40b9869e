"""A whole training step beside PyTorch: ViT-B/16 at 384×128, five losses, Adam.

    python benchmarks/train_step.py                  # on a CPU batch 8 in float32, else a sweep
    python benchmarks/train_step.py --batches 256 --dtype=bfloat16 --rounds=20
    python benchmarks/train_step.py --batches 64 --micro-batch=8 --alone --rounds=1
    python benchmarks/train_step.py --alone --length=77

Equal work: the same weights, pictures, sentences and masked phrases, Adam with a learning rate and
a weight decay for each group of parameters. The losses of both at the first two steps are shown.
Ours also augments the pictures and draws what is masked, within its step. The peer
(benchmarks/peer.py) is transformers' CLIP with fusion module, head and losses as IRRA's code has
them: either sentence in a pass of its own at 77 tokens, the head at all positions. On a GPU it is
compiled, under autocast to bfloat16, and Adam is one kernel; on a CPU it is as PyTorch has it.

Both take turns, each in a process of its own; the median of the turns after the first two counts.
A turn is a step, but on a GPU eight, of which the last is waited for, as training loops do.
Ours sets the allocator as run.py does (`aima_jax.platform`).
Memory is the highest resident set of the process from its first step on, libraries and compiling
included; on a GPU it is the device's. The peer compiles, where it does, during its first step.
FLOPs are counted from the shapes (`ours.count_flops`); XLA's own count stands beside them, which
leaves out what it has libraries compute, on a GPU nearly all. Their rate is given as a share of
"matmul" and, on the cards of `PEAKS`, of the maker's number for dense products in bfloat16, which
is the model FLOP utilisation.
"matmul" is the rate of products of two square matrices of random numbers, 2048² in float32 on a
CPU, 8192² in bfloat16 elsewhere, of XLA and PyTorch, in turns of their own right after the steps.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import tempfile

from contest import Contender, do_once

LOSSES = ("InfoNCE", "SDM", "ID", "MAP", "A-IoU IMC")
SWEEP = (64, 128, 256, 512, 1024)  # of an accelerator
# Dense FLOP/s in bfloat16 by the makers' data sheets, by what a device's name contains.
PEAKS = {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
}
FIRST = 2  # steps that show the losses, and warm up


def compare(batch: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Take steps in turn; return the numbers of each contender."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not args.alone:
            do_once("ours:write_training", batch=batch, length=args.length, folder=folder)
        ours = Contender(
            "ours:training_step",
            batch=batch,
            micro_batch=args.micro_batch or batch,
            dtype=args.dtype,
            remat=args.remat,
            length=args.length,
            steps=args.steps,
        )
        contenders = {"ours": stack.enter_context(ours)}
        if not args.alone:
            theirs = Contender(
                "peer:training_step", dtype=args.dtype, folder=folder, steps=args.steps
            )
            contenders["PyTorch"] = stack.enter_context(theirs)
        answers = {name: [] for name in contenders}
        for _ in range(FIRST + args.rounds):
            for name, contender in contenders.items():
                answers[name].append(contender.turn())
    if not args.alone:
        show_losses(*answers.values())
    results = {}
    for name, given in answers.items():
        seconds = statistics.median(answer["seconds"] for answer in given[FIRST:])
        results[name] = {
            "seconds": seconds,
            "images/s": batch / seconds,
            "GB": max(answer["bytes"] for answer in given) / 1e9,
            "compiling": given[0].get("compiling", given[0]["seconds"]),
        }
    for name, rate in matmul_rates(args).items():
        results[name]["matmul"] = rate
    results["ours"] |= {name: answers["ours"][0][name] for name in ("FLOPs", "XLA FLOPs")}
    results["ours"]["peak"] = peak_of(answers["ours"][0]["device"])
    return results


def matmul_rates(args: argparse.Namespace) -> dict[str, float]:
    """FLOP/s of the product, in turns; its memory would count as the step's in one process."""
    with contextlib.ExitStack() as stack:
        ours = Contender("ours:matmul")
        contenders = {"ours": stack.enter_context(ours)}
        if not args.alone:
            contenders["PyTorch"] = stack.enter_context(Contender("peer:matmul"))
        rates = {name: [] for name in contenders}
        for _ in range(1 + args.rounds):
            for name, contender in contenders.items():
                rates[name].append(contender.turn()["matmul"])
    return {name: statistics.median(given[1:]) for name, given in rates.items()}


def peak_of(device: str) -> float | None:
    """The maker's FLOP/s of a kind of device, None where we do not know it."""
    return next((peak for name, peak in PEAKS.items() if name in device), None)


def show_losses(ours: list[dict], theirs: list[dict]) -> None:
    """Print the losses that both have found at the first steps."""
    print(f"{'losses':<22}" + "".join(f"{name:>11}" for name in LOSSES))
    for step in range(FIRST):
        for name, answers in (("ours", ours), ("PyTorch", theirs)):
            values = "".join(f"{value:>11.6f}" for value in answers[step]["losses"])
            print(f"  step {step}, {name:<12}{values}")


def show(batch: int, results: dict[str, dict[str, float]]) -> None:
    """Print speed, memory and, of ours, the share of the machine's own rate."""
    print(f"batch {batch:<6}{'s/step':>10}{'images/s':>10}{'peak GB':>9}{'compiling s':>13}")
    for name, got in results.items():
        cells = f"{got['seconds']:>10.3f}{got['images/s']:>10.2f}{got['GB']:>9.2f}"
        print(f"  {name:<10}{cells}{got['compiling']:>13.1f}")
    ours = results["ours"]
    if "PyTorch" in results:
        peer = results["PyTorch"]
        print(
            f"  ratio     {peer['seconds'] / ours['seconds']:.2f} × the speed, "
            f"{ours['GB'] / peer['GB']:.2f} × the memory; "
            f"of a matmul {ours['matmul'] / peer['matmul']:.2f} × the speed"
        )
    rate = ours["FLOPs"] / ours["seconds"]
    print(
        f"  ours does {rate / 1e9:,.0f} GFLOP/s of {ours['matmul'] / 1e9:,.0f} of a matmul: "
        f"{rate / ours['matmul']:.1%}; {ours['FLOPs'] / 1e9:,.0f} GFLOP a step, "
        f"{ours['XLA FLOPs'] / 1e9:,.0f} by XLA's count",
        flush=True,
    )
    if ours["peak"]:
        print(
            f"  model FLOP utilisation {rate / ours['peak']:.1%} of {ours['peak'] / 1e12:,.0f} "
            "TFLOP/s in bfloat16",
            flush=True,
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each after the first two")
    parser.add_argument("--micro-batch", type=int, default=0, help="of ours; 0: the whole batch")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="none")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--length", type=int, default=0, help="tokens that ours pads sentences to")
    parser.add_argument("--alone", action="store_true", help="without the peer")
    parser.add_argument("--json", type=pathlib.Path, help="file to write the numbers to")
    args = parser.parse_args()
    # Both share one GPU, so that ours may not take three quarters of it at the start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} before the start")
    with Contender("ours:kind") as probe:  # ends before another process wants the device
        on_cpu = probe.turn()["kind"] == "cpu"
    args.dtype = args.dtype or ("float32" if on_cpu else "bfloat16")
    args.steps = 1 if on_cpu else 8
    found = {}
    for batch in args.batches or ((8,) if on_cpu else SWEEP):
        try:
            found[batch] = compare(batch, args)
        except EOFError:
            print(f"batch {batch}: a process ended, most likely for want of memory")
            break
        show(batch, found[batch])
        if args.json:
            args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
