"""Write an example dataset folder: 60 rendered crops with labels and schema.

python -m tfds_builders.folder.example FOLDER
"""

import csv
import json
import pathlib
import sys

from aima_jax.files import user_path
from tfds_builders.synthetic_pedestrians.schema import SCHEMA
from tfds_builders.synthetic_pedestrians.splits import Size, plan

_PICTURES = 60
_GROUPS = ("gender", "age", "hair", "hat", "upper_color", "lower_type", "lower_color", "bag")


def write_example(folder: pathlib.Path) -> None:
    """Render the crops; write `schema.json` and a `labels.csv` with a column for each group.

    Raises:
        FileExistsError: the path already exists.
    """
    folder.mkdir(parents=True)
    split = plan(Size(train=4 * _PICTURES, seed=7))["train"]
    groups = [SCHEMA.group(name) for name in _GROUPS]
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "identity", "camera", *_GROUPS])
        for index in range(_PICTURES):
            shown = split.assignment(index)
            name = f"{index:02}.jpg"
            (folder / name).write_bytes(split.render(index))
            told = SCHEMA.decode(shown.attributes)
            values = [
                int(value) if isinstance(value, bool) else value
                for value in (told[one] for one in _GROUPS)
            ]
            table.writerow([name, shown.identity, shown.camera, *values])
    plain = [
        {"name": group.name, "kind": group.kind}
        | ({"values": list(group.values)} if group.values else {})
        | ({"absent": group.absent} if group.absent else {})
        for group in groups
    ]
    lines = ",\n".join(f"    {json.dumps(group)}" for group in plain)
    text = f'{{\n  "name": "example",\n  "groups": [\n{lines}\n  ]\n}}\n'
    (folder / "schema.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_example(user_path(sys.argv[1]))
