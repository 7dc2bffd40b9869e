"""Kill `aima index` at random moments, start it again, and compare with one left in peace.

    python tests/tools/kill_index.py --kills=20 --seed=0

Pictures of noise are indexed in parts of a few rows by a tiny model. Each process is killed by
SIGKILL at a moment drawn from the time that one left in peace takes, again and again until one ends
by itself. Then the gallery must be that of the one left in peace, to the last bit of every file.
Between galleries some pictures are replaced and removed, so that later kills meet those as well.
"""

import argparse
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
# Python as `aima index` is, with parts small enough for a kill to fall between two of them.
INDEX = (
    "import sys; from aima_jax.search import index; from aima_jax import cli;"
    "index.index_folder.__kwdefaults__['rows_of_a_part'] = 16;"
    "sys.exit(cli.main(sys.argv[1:]))"
)


def command(pictures, workdir, place):
    flags = [f"--workdir={workdir}", f"--out={place}"]
    return [sys.executable, "-c", INDEX, "index", str(pictures), *flags]


def files_of(place):
    """The bytes of all files of a gallery but its locks."""
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from samples import make_model, picture, save

    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        os.environ |= {
            "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        workdir, pictures = save(folder / "run", make_model()), folder / "pictures"
        pictures.mkdir()
        for number in range(args.pictures):
            picture(number).save(pictures / f"{number:04}.png")
        (pictures / "broken.jpg").write_bytes(b"no picture")
        kills, galleries = 0, 0
        peace, disturbed = folder / "peace", folder / "disturbed"
        while kills < args.kills:
            start = time.monotonic()
            subprocess.run(command(pictures, workdir, peace), check=True, capture_output=True)
            seconds = time.monotonic() - start
            while True:
                process = subprocess.Popen(
                    command(pictures, workdir, disturbed),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                try:
                    output, _ = process.communicate(timeout=rng.uniform(0.2, 1) * seconds)
                    assert process.returncode == 0, output
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                kills += 1
                parts = sorted(path.name for path in disturbed.glob("parts/*"))
                print(f"kill {kills:2} of gallery {galleries}: {parts[-3:]}", flush=True)
            assert files_of(disturbed) == files_of(peace), "the galleries differ"
            galleries += 1
            if galleries % 3 == 0:
                shutil.rmtree(peace)
                shutil.rmtree(disturbed)
            for number in rng.sample(range(args.pictures), 40):
                path = pictures / f"{number:04}.png"
                if path.exists() and number % 4 == 0:
                    path.unlink()
                else:
                    picture(number + 1000 * galleries).save(path)
    print(f"{kills} kills of {galleries} galleries: all ended as those left in peace")


if __name__ == "__main__":
    main()
