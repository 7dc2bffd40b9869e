"""The training step compiled for devices that are not here: memory, FLOPs, and whether it fits.

    python benchmarks/compile_for.py v5e:2x2 --batch=256 [--fsdp=4] [--remat=full]
    python benchmarks/compile_for.py v6e:2x2         # v5p:2x2x1, H100, H100:8
    python benchmarks/compile_for.py v5e:2x2 --model=tiny --batch=16

The step is that of configs/market1501.py on ViT-B/16 at 384×128 in bfloat16, its layers in a loop
unless --unrolled is given. A TPU needs libtpu (`pip install .[aot]`), a GPU JAX's CUDA plugin
(`.[cuda]`); either compiles on any machine, ViT-B/16 in minutes.

State and temporary memory are XLA's, per device; the state is donated. FLOPs are counted by the
formula of `ours.count_flops` and by XLA, which counts the body of a loop once, however often it is
taken, and for a GPU nothing.
"""

import argparse
import os
import time
from collections.abc import Sequence

# Before JAX is imported: libtpu asks the cloud for its TPU else, and JAX the driver for a GPU.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}

import jax
import numpy as np
import ours
from jax.experimental import topologies
from jax.sharding import Mesh

from aima_jax.parameters import flatten
from aima_jax.platform import platform_of
from aima_jax.sharding import batch_sharding, make_mesh, replicated, state_shardings
from configs import market1501

# Memory in GiB and dense FLOP/s in bfloat16 of one device, by the makers' data sheets.
DEVICES = {
    "v5e": (16, 197e12),
    "v5p": (95, 459e12),
    "v6e": (32, 918e12),
    "H100": (80, 989e12),
}
# What XLA has to know of an H100 (SXM); beside its memory, the size of kernels follows from it.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132  fpus_per_core: 128  threads_per_warp: 32  clock_rate_ghz: 1.98
  threads_per_block_limit: 1024  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000  l2_cache_size: 52428800  device_memory_size: 84942979072
}
platform_name: "CUDA"
dnn_version_info { major: 9  minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def devices_of(name: str) -> list[jax.Device]:  # pyright: ignore[reportInvalidTypeForm]  (jax's)
    """The devices of a topology as "v5e:2x2", or of one host with GPUs as "H100:8".

    Raises:
        ValueError: there is no such device, or what compiles for it is not installed.
    """
    kind, _, shape = name.partition(":")
    if kind not in DEVICES:
        raise ValueError(
            f"no device {kind!r}; there are {', '.join(DEVICES)}, as v5e:2x2 or H100:8"
        )
    try:
        if kind == "H100":
            arguments = {"target_config": H100, "topology": f"1x1x{shape or 1}"}
            return topologies.get_topology_desc(platform="cuda", **arguments).devices
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except (RuntimeError, NotImplementedError, ImportError) as error:
        extra = "cuda" if kind == "H100" else "aot"
        raise ValueError(
            f"cannot compile for {name}: {error}; try pip install .[{extra}]"
        ) from None


def compile_step(args: argparse.Namespace, mesh: Mesh) -> tuple[jax.stages.Compiled, float]:
    """Compile the step for a mesh; return the FLOPs of the formula, too."""
    config = ours.model_config(
        args.model, dtype="bfloat16", remat=args.remat, scan_layers=not args.unrolled
    )
    parts = args.batch // (args.micro_batch or args.batch)
    step, create_state = ours.make_step(config, platform_of(mesh), micro_batches=parts)
    table, rows = ours.draw_categories(0), ours.draw_batch(args.batch)
    rows["request"] = np.zeros(mesh.size, np.int32)
    state = jax.eval_shape(create_state, flatten(jax.eval_shape(lambda: ours.create(config))))
    where = state_shardings(state, mesh, market1501.get_config().mesh.min_shard_elements)

    def place(tree, shardings):
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            tree,
            shardings,
        )

    jitted = jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(where, replicated(mesh)),
        compiler_options=platform_of(mesh).compiler_options(),
    )
    start = time.perf_counter()
    lowered = jitted.lower(
        place(state, where),
        place(rows, dict.fromkeys(rows, batch_sharding(mesh))),
        jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), table
        ),
    )
    print(f"lowered in {time.perf_counter() - start:.0f} s", flush=True)
    start = time.perf_counter()
    compiled = lowered.compile()
    print(f"compiled in {time.perf_counter() - start:.0f} s", flush=True)
    return compiled, ours.count_flops(config, args.batch, table.tokens.shape[-1])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("topology", help="v5e:2x2, v6e:2x2, v5p:2x2x1, H100 or H100:8")
    parser.add_argument("--batch", type=int, default=256, help="images of all devices")
    parser.add_argument("--micro_batch", type=int, default=0, help="0: the whole batch")
    parser.add_argument("--fsdp", type=int, default=1, help="devices that share parameters")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="none")
    parser.add_argument("--model", default="ViT-B/16", help="a preset")
    parser.add_argument("--unrolled", action="store_true", help="every layer compiled")
    return parser.parse_args(arguments)


def main() -> None:
    """Compile and print."""
    args = parse()
    try:
        mesh = make_mesh(fsdp=args.fsdp, devices=devices_of(args.topology))
    except ValueError as error:
        raise SystemExit(str(error)) from None
    gib, rate = DEVICES[args.topology.partition(":")[0]]
    device = mesh.devices.flat[0]
    print(f"{mesh.size} × {device.device_kind}, a batch of {args.batch}: {args.model}", flush=True)
    try:
        compiled, flops = compile_step(args, mesh)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"does not fit: {str(error).splitlines()[0]}")
        return
    memory = compiled.memory_analysis()
    assert memory is not None
    state, temporary = (
        size / 2**30 for size in (memory.argument_size_in_bytes, memory.temp_size_in_bytes)
    )
    counted = (compiled.cost_analysis() or {}).get("flops")
    print(f"{state:.2f} GiB of state and batch, {temporary:.2f} of temporaries a device")
    print(f"{flops / mesh.size / 1e12:.3f} TFLOP a device by the formula", end="")
    print(f", {counted / 1e12:.3f} by XLA, loops once" if counted else ", XLA counts none")
    print(f"at least {1e3 * flops / mesh.size / rate:.1f} ms a step at {rate / 1e12:.0f} TFLOP/s")
    fits = "fits" if state + temporary < gib else "does not fit"
    print(f"{fits} into {gib} GiB")


if __name__ == "__main__":
    main()
