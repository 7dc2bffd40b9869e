"""`schema.json`: the meaning of the columns of `labels.csv`, and their wording."""

import dataclasses
import json
import pathlib
import re
from typing import Any

from aima_jax.attributes import AttributeSchema
from aima_jax.text import PromptTemplate, Wording
from tfds_builders.folder.wording import generate
from tfds_builders.records import Traits

RESERVED = ("image", "identity", "camera", "split")
_NAME = re.compile(r"\w[\w-]*")
_NOT_IN_VALUES = ",;=!|"
_FIELDS = ("name", "groups", "names", "absences", "wording", "traits", "splits")


@dataclasses.dataclass(frozen=True)
class Shares:
    """Shares of the pictures drawn for val and test where no column assigns them, and the seed."""

    val: float = 0.1
    test: float = 0.2
    seed: int = 0

    def __post_init__(self):
        if not (0 <= self.val < 1 and 0 < self.test < 1 and self.val + self.test < 1):
            raise ValueError("val and test must be fractions with a sum below 1")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError("seed must be an integer, 0 or more")


@dataclasses.dataclass(frozen=True)
class Content:
    """The parsed file; `traits` is None if it has none."""

    schema: AttributeSchema
    wording: Wording
    traits: Traits | None
    shares: Shares


def read_schema(path: pathlib.Path) -> Content:
    """Read `schema.json`: `AttributeSchema.to_dict()`, and optional wording, traits and splits.

    A group may omit `values` and `absent`, the schema `names` and `absences`. Parts of the wording
    that are given replace those generated from the names of groups and values.

    Raises:
        ValueError: an entry is invalid; the message names its line.
    """
    text = _text(path)
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{path}: {where}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deeply") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: line 1: expected an object with {', '.join(_FIELDS)}")

    def part(field: str, read, *given: Any):
        try:
            return read(*given)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            line = _line(text, field)
            said = f"{error}" if isinstance(error, ValueError) else f"missing or repeated: {error}"
            raise ValueError(f"{path}: line {line}, {field}: {said}") from error

    for field in data:
        if field not in _FIELDS:
            raise ValueError(
                f"{path}: line {_line(text, field)}: {field!r} is unknown; expected "
                f"{', '.join(_FIELDS)}"
            )
    part("name", _check_name, data.get("name"), "the dataset's name")
    groups = part("groups", _list, data.get("groups"))
    groups = [part(_name_of(group), _group, group) for group in groups]
    names = part("names", _list, data.get("names") or [bit for one in groups for bit in _bits(one)])
    schema = part(
        "groups",
        AttributeSchema.from_dict,
        {"name": data["name"], "groups": groups, "names": names}
        | {"absences": part("absences", list, data.get("absences") or [])},
    )
    return Content(
        schema,
        part("wording", _wording, schema, data.get("wording") or {}),
        part("traits", _traits, data["traits"]) if data.get("traits") else None,
        part("splits", _shares, data.get("splits") or {}),
    )


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error.reason}") from error


def _line(text: str, word: str) -> int:
    """The number of the first line with the word in quotes; 1 if there is none."""
    place = text.find(json.dumps(word, ensure_ascii=False))
    return text.count("\n", 0, max(place, 0)) + 1


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"expected a list, found {value!r}")
    return value


def _name_of(group: Any) -> str:
    name = group.get("name") if isinstance(group, dict) else None
    return name if isinstance(name, str) else "groups"


def _check_name(name: Any, what: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{what} is {name!r}; expected letters, digits, _ and -")


def _group(given: Any) -> dict[str, Any]:
    """A group with all its fields."""
    known = {"name": None, "kind": None, "values": [], "absent": None}
    if not isinstance(given, dict) or not given.keys() <= known.keys():
        raise ValueError(f"expected an object with {', '.join(known)}; found {given!r}")
    group = known | given
    _check_name(group["name"], "a group")
    if group["name"] in RESERVED:
        raise ValueError(f"a group cannot have a reserved name: {', '.join(RESERVED)}")
    if not isinstance(group["values"], list):
        raise ValueError(f"values are {group['values']!r}; expected a list")
    absent = group["absent"]
    words = [*group["values"], *([] if absent is None else [absent])]
    for word in words:
        text = isinstance(word, str) and word == word.strip() and word
        if not text or not word.isprintable() or any(sign in word for sign in _NOT_IN_VALUES):
            raise ValueError(f"value {word!r}: expected text without {' '.join(_NOT_IN_VALUES)}")
    if len(set(words)) < len(words):
        raise ValueError("a value is given twice")
    return group


def _bits(group: dict[str, Any]) -> list[str]:
    values = [f"{group['name']}={value}" for value in group["values"]]
    return values or [group["name"]]


def _wording(schema: AttributeSchema, given: Any) -> Wording:
    """The generated wording, overridden by what is given."""
    made = generate(schema).to_dict()
    if not isinstance(given, dict) or not given.keys() <= made.keys():
        raise ValueError(f"expected an object with {', '.join(made)}")
    for field, value in given.items():
        merged = isinstance(made[field], dict) and field != "subject" and isinstance(value, dict)
        made[field] = made[field] | value if merged else value
    try:
        wording = Wording.from_dict(made)
        PromptTemplate(schema, "sentence", wording).render({})
    except (TypeError, AttributeError) as error:
        raise ValueError(f"not a wording: {error}") from error
    return wording


def _shares(given: Any) -> Shares:
    fields = [field.name for field in dataclasses.fields(Shares)]
    if not isinstance(given, dict) or not given.keys() <= set(fields):
        raise ValueError(f"expected an object with {', '.join(fields)}; found {given!r}")
    return Shares(**given)


def _traits(given: Any) -> Traits:
    kinds = {"cameras": bool, "query_folder": str | None, "identities": bool}
    known: dict[str, Any] = dict.fromkeys(kinds) | dict(given)
    if known.keys() != kinds.keys() or not all(
        isinstance(known[name], kind) for name, kind in kinds.items()
    ):
        raise ValueError("expected cameras and identities (true or false) and query_folder (text)")
    return Traits(**known)
