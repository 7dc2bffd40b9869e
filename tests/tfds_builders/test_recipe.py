"""CONTRIBUTING's recipe for a dataset: a folder and a config, and nothing else."""

import pathlib
import shutil
import subprocess
import sys

from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]

DATASET = {
    "tfds_builders/toys/__init__.py": """
from tfds_builders.toys.schema import SCHEMA
from tfds_builders.toys.wording import WORDING
""",
    "tfds_builders/toys/schema.py": """
from aima_jax.attributes import AttributeSchema, Group

SCHEMA = AttributeSchema(
    "toys", (Group("color", "exclusive", ("red", "green", "blue")), Group("hat", "flag"))
)
""",
    "tfds_builders/toys/wording.py": """
from aima_jax.text import Clause, NounPhrase, Wording, things

WORDING = Wording(
    words={"hat": "a hat"},
    subject=NounPhrase("a toy", adjectives=("color",)),
    details=(),
    predicates=(Clause("wears", things("hat")),),
    absences={"hat": "no hat"},
)
""",
    "tfds_builders/toys/builder.py": """
from tfds_builders.records import PersonSearchBuilder, Record, SplitRecords, Traits
from tfds_builders.toys.schema import SCHEMA
from tfds_builders.toys.wording import WORDING


class Toys(PersonSearchBuilder):
    \"\"\"Toys of one color, their file names say which.\"\"\"

    name = "toys"
    schema = SCHEMA
    wording = WORDING
    traits = Traits(cameras=False, query_folder=None, identities=False)
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put the pictures into manual_dir/train and manual_dir/test."

    def splits(self, manual_dir):
        splits = {}
        for name in ("train", "test"):
            records = []
            for path in sorted((manual_dir / name).iterdir()):
                color, hat, _ = path.stem.split("_")
                bits = SCHEMA.encode({"color": color, "hat": hat == "hat"})
                records.append(Record(f"{name}/{path.name}", path, bits))
            splits[name] = SplitRecords(len(records), records)
        return splits
""",
    "configs/toys.py": """
from configs import common


def get_config():
    config = common.get_config()
    config.dataset = "toys"
    config.batch_size = 4
    config.selection = "test"
    config.protocols = ("standard", "sal")
    return config
""",
}
USE = """
from aima_jax import cli
from aima_jax.fields import check_config
from aima_jax.data import open_dataset, prepared_folder
from aima_jax.training.setup import load_problem
from configs.toys import get_config

assert cli.main(["prepare", "toys", "--manual_dir=raw", "--data_dir=data"]) == 0
assert cli.main(["describe", "toys", "--data_dir=data", "--picture=toys.png"]) == 0
config = get_config()
config.data_dir = "data"
check_config(config)
problem = load_problem(config, open_dataset(prepared_folder(config)))
assert len(problem.train) == 24 and len(problem.validation) == 6
assert "a red toy wears a hat" in {text[:-1].lower() for text in problem.table.sentences}
"""


def test_a_new_dataset_is_one_folder_and_one_config(tmp_path):
    for package in ("aima_jax", "tfds_builders", "configs"):
        leave_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=leave_out)
    for name, text in DATASET.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for split, count in (("train", 4), ("test", 1)):
        (tmp_path / "raw" / split).mkdir(parents=True)
        for color in ("red", "green", "blue"):
            for hat in ("hat", "none"):
                for number in range(count):
                    path = tmp_path / "raw" / split / f"{color}_{hat}_{number}.png"
                    Image.new("RGB", (8 + number, 16), color).save(path)
    done = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "toys is prepared: train 24, test 6" in done.stdout
    assert (tmp_path / "toys.png").exists()
