"""Train one run on one device, on eight and on two hosts, and compare what comes out.

    python tests/tools/host_runs.py

Two hosts are two processes of this machine with two devices each. Twenty steps are taken, in
float32.
"""

import argparse
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

import kill_runs
import numpy as np

from aima_jax import checkpoint
from aima_jax.files import read_sealed_json
from aima_jax.parameters import flatten
from aima_jax.workdir import read_metrics

HEARTBEAT_SECONDS = 10
# run.py, but a host that is not heard of counts as dead sooner.
_HOST = f"""
import runpy, sys
from aima_jax import distributed
distributed.HEARTBEAT_SECONDS = {HEARTBEAT_SECONDS}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start_hosts(command, devices):
    """Start two processes that carry out a command of run.py as one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    python, *arguments = command
    environment = {
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")
        + f" --xla_force_host_platform_device_count={devices}",
        # Only the first host writes a cache, and would then start long before the second: on CPUs
        # hosts wait 30 seconds for each other, which is fixed in JAX.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    return [
        subprocess.Popen(
            [
                *(python, "-c", _HOST, *arguments),
                *(f"--coordinator={coordinator}", "--processes=2", f"--process={process}"),
            ],
            cwd=kill_runs.ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]


def finish_hosts(command):
    hosts = start_hosts(command, devices=2)
    outputs = [host.communicate()[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], "\n".join(outputs)


def lose_a_host(command, workdir, devices=2):
    """Kill the second host after a save.

    Returns the first, which has ended, what it said, and how many seconds later it ended.
    """
    hosts = start_hosts(command, devices)
    try:
        while not list((workdir / checkpoint.FOLDER).glob(f"*/{checkpoint.MANIFEST}")):
            assert [host.poll() for host in hosts] == [None, None]
            time.sleep(0.01)
        hosts[1].kill()
        start = time.monotonic()
        output, _ = hosts[0].communicate(timeout=6 * HEARTBEAT_SECONDS)
    finally:
        for host in hosts:
            host.kill()
    return hosts[0], output, time.monotonic() - start


def losses(workdir):
    """The losses of each step, in order."""
    rows = read_metrics(workdir / "metrics.jsonl")
    return np.array([row["train/loss"] for row in rows if "train/loss" in row])


def similarities(workdir):
    with np.load(workdir / "rankings.npz") as rankings:
        return rankings["similarity"]


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")

        def command(name, *flags):
            return kill_runs.command(folder / name, folder / "data", "--config.epochs=5", *flags)

        for devices in (1, 8):
            os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
            kill_runs.finish(command(f"{devices} devices"))
        finish_hosts(command("2 hosts"))
        one = folder / "1 devices"
        for name in ("8 devices", "2 hosts"):
            apart = np.abs(losses(folder / name) / losses(one) - 1).max()
            print(f"{name}: losses of {len(losses(one))} steps within {apart:.1e} of one device's")

        name = "2 hosts, one lost"
        host, _, seconds = lose_a_host(command(name), folder / name)
        print(f"{name}: the other ends {seconds:.0f} s later with exit code {host.returncode}")
        finish_hosts(command(name))
        apart = np.abs(losses(folder / name) / losses(folder / "2 hosts") - 1).max()
        print(f"    both go on: losses within {apart:.1e} of those of hosts left in peace")

        evaluations = {"8 devices": kill_runs.finish, "2 hosts": finish_hosts}
        for name, finish in evaluations.items():
            again = shutil.copytree(one, folder / f"{name} again")
            finish(command(f"{name} again", "--mode=evaluate"))
            apart = np.abs(similarities(again) - similarities(one)).max()
            same = (again / "results.json").read_bytes() == (one / "results.json").read_bytes()
            print(f"{name} evaluate one device's checkpoint: similarities within {apart:.1e},")
            print(f"    results {'equal' if same else 'differ'}")

        saved = checkpoint.select(folder / "2 hosts", best=False).path
        print(f"one process reads what two hosts saved: {parameters(saved)}")


def parameters(path):
    params = flatten(checkpoint.load_model(path).model)
    files = read_sealed_json(path / checkpoint.MANIFEST)["files"]
    assert any("process_1" in name for name in files), "the second host saved nothing"
    assert all(np.isfinite(value).all() for value in params.values())
    return f"{len(params)} parameters from files of both"


if __name__ == "__main__":
    main()
