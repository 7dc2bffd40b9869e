"""What can be said of a person: groups of attributes, and the bit vectors that stand for them.

A description is a dict from a group's name to what is said of it: True or False of a flag, a value
of another group, the group's word for absence, or a value that does not hold, as "!red". Several
values, or several that do not hold, come as a tuple. What a dict leaves out is unknown.
"""

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int8, Shaped, UInt8

Description = dict[str, str | tuple[str, ...] | bool]
ArrayKind = TypeVar("ArrayKind", np.ndarray, Array)

NOT = "!"  # before a value: it does not hold
_FLAG_WORDS = {"yes": True, "true": True, "no": False, "false": False}


@dataclasses.dataclass(frozen=True)
class Group:
    """One question about a person, and the answers that have a bit each.

    Of an `exclusive` group exactly one value holds or, where `absent` is given, at most one, and
    `absent` is the word for none of them. Of an `independent` group any number of values holds. A
    `flag` has one bit and no values: it holds or it does not.
    """

    name: str
    kind: Literal["exclusive", "independent", "flag"]
    values: tuple[str, ...] = ()
    absent: str | None = None

    def __post_init__(self):
        if self.kind not in ("exclusive", "independent", "flag"):
            raise ValueError(
                f"group {self.name}: its kind is {self.kind!r}; "
                "expected 'exclusive', 'independent' or 'flag'"
            )
        if (self.kind == "flag") == bool(self.values):
            raise ValueError(f"group {self.name}: a flag has no values, every other kind has some")
        if self.absent is not None and self.kind != "exclusive":
            raise ValueError(f"group {self.name}: only an exclusive group has a word for absence")

    @functools.cached_property
    def bits(self) -> tuple[str, ...]:
        """Names of the group's bits, "backpack" of a flag, otherwise as "upper_color=red"."""
        if self.kind == "flag":
            return (self.name,)
        return tuple(f"{self.name}={value}" for value in self.values)

    @property
    def answers(self) -> tuple[str, ...]:
        """The values that a description may give, the word for absence included."""
        return self.values if self.absent is None else (*self.values, self.absent)

    def check(self, value: Any) -> str | tuple[str, ...] | bool:
        """Return what is said of the group in one form.

        A flag gives a bool; an exclusive group a value, or a tuple of those that do not hold; an
        independent group a tuple. Tuples are in the order of the group's values.

        Raises:
            ValueError: it cannot be said of this group.
        """
        if self.kind == "flag":
            if not isinstance(value, bool | np.bool_):
                raise ValueError(f"{self.name} is {value!r}; expected True or False")
            return bool(value)
        given = (value,) if isinstance(value, str) else value
        if not isinstance(given, Iterable) or not all(isinstance(one, str) for one in given):
            number = "one" if self.kind == "exclusive" else "any number"
            raise ValueError(
                f"{self.name} is {value!r}; expected {number} of {', '.join(self.answers)}"
            )
        given = tuple(given)
        for one in given:
            _require_known(one.removeprefix(NOT), self.answers, f"{self.name}: value")
        negated = [one.startswith(NOT) for one in given]
        if self.kind == "exclusive":
            if given == (f"{NOT}{self.absent}",) and len(self.values) == 1:
                return self.values[0]
            if f"{NOT}{self.absent}" in given:
                raise ValueError(
                    f"{self.name} is said not to be {self.absent}; expected one of "
                    f"{', '.join(self.values)}"
                )
            if len(given) == 1 and not negated[0]:
                return given[0]
            if not given or not all(negated):
                raise ValueError(
                    f"{self.name} is {value!r}; expected one of {', '.join(self.answers)}, or "
                    f"some that do not hold, as {NOT}{self.values[0]}"
                )
        for one in self.values:
            if one in given and NOT + one in given:
                raise ValueError(f"{self.name} is said to be {one}, and not to be {one}")
        return tuple(form for one in self.values for form in (one, NOT + one) if form in given)

    def statements(self, value: str | tuple[str, ...] | bool) -> dict[str, bool]:
        """Return which bits a checked value says to hold (True), and which not to (False)."""
        if isinstance(value, bool):
            return {self.name: value}
        if value == self.absent:
            return dict.fromkeys(self.bits, False)
        values = (value,) if isinstance(value, str) else value
        return {f"{self.name}={one.removeprefix(NOT)}": not one.startswith(NOT) for one in values}


@dataclasses.dataclass(frozen=True)
class AttributeSchema:
    """The attributes of a dataset: groups in order, one bit for each value that can hold.

    Attributes:
        name: of the schema.
        groups: what can be asked of a person.
        names: of the bits in their order; that of the groups where left out.
        absences: bits that say of something that it is not there, as PETA's `no_accessory`: they do
            not count as attributes that hold.

    Raises:
        ValueError: `names` gives other bits than the groups, or `absences` others than `names`.
    """

    name: str
    groups: tuple[Group, ...]
    names: tuple[str, ...] = ()
    absences: tuple[str, ...] = ()

    def __post_init__(self):
        bits = tuple(bit for group in self.groups for bit in group.bits)
        names = tuple(self.names) or bits
        if len(set(bits)) != len(bits) or sorted(names) != sorted(bits):
            wrong = sorted(set(names) ^ set(bits)) or "some are given twice"
            raise ValueError(f"schema {self.name}: names and groups differ in their bits: {wrong}")
        if unknown := sorted(set(self.absences).difference(names)):
            raise ValueError(f"schema {self.name}: absences that are not among its bits: {unknown}")
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "absences", tuple(self.absences))

    @property
    def size(self) -> int:
        """How many bits a vector has."""
        return len(self.names)

    @functools.cached_property
    def presences(self) -> Bool[np.ndarray, "attributes"]:
        """Which bits say that something is there: all but `absences`."""
        return ~np.isin(self.names, self.absences)

    def group(self, name: str) -> Group:
        """Return the group of that name.

        Raises:
            ValueError: there is none; the message names the nearest.
        """
        _require_known(name, tuple(self._groups), f"schema {self.name}: attribute")
        return self._groups[name]

    @functools.cached_property
    def _groups(self) -> dict[str, Group]:
        return {group.name: group for group in self.groups}

    @functools.cached_property
    def _position(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names)}

    def validate(self, description: Mapping[str, Any]) -> Description:
        """Return a description, whole or partial, with values as `decode` gives them.

        Groups are in the schema's order, each value as `Group.check` gives it.

        Raises:
            ValueError: the schema does not have a group or value.
        """
        for name in description:
            self.group(name)
        return {
            group.name: group.check(description[group.name])
            for group in self.groups
            if group.name in description
        }

    def encode(self, description: Mapping[str, Any]) -> UInt8[np.ndarray, "attributes"]:
        """Return the bits of a description: a dict from group to value, values, or True or False.

        Groups left out do not hold.

        Raises:
            ValueError: the schema does not have a group or value, an exclusive group has two, or
                one of which exactly one value holds is left out.
        """
        said = self.said(description)
        for group in self.groups:
            required = group.kind == "exclusive" and group.absent is None
            if required and not (said[[self._position[bit] for bit in group.bits]] == 1).any():
                raise ValueError(
                    f"schema {self.name}: {group.name} is missing; "
                    f"expected one of {', '.join(group.values)}"
                )
        return (said == 1).astype(np.uint8)

    def said(
        self, description: Mapping[str, Any] | Shaped[np.ndarray, "attributes"]
    ) -> Int8[np.ndarray, "attributes"]:
        """Return what a description says of each bit: 1 it holds, -1 it does not, 0 nothing.

        A bit vector says all: what is not set does not hold. A dict says what it says, of a group's
        absence that none of its bits holds, of one value nothing about the others.

        Raises:
            ValueError: as `validate` and `decode`.
        """
        if not isinstance(description, Mapping):
            self.decode(description)
            return 2 * np.asarray(description, np.int8) - 1
        said = np.zeros(self.size, np.int8)
        for name, value in self.validate(description).items():
            for bit, holds in self.group(name).statements(value).items():
                said[self._position[bit]] = 1 if holds else -1
        return said

    def decode(self, bits: Shaped[np.ndarray, "attributes"]) -> Description:
        """Return the description of a bit vector, every group covered: the inverse of `encode`.

        Raises:
            ValueError: the size is another one, a bit is neither 0 nor 1, or an exclusive group has
                too many or too few bits.
        """
        bits = np.asarray(bits)
        if bits.shape != (self.size,):
            raise ValueError(f"schema {self.name}: {bits.shape} bits; expected ({self.size},)")
        row = bits.tolist()
        if not all(bit in (0, 1) for bit in row):
            raise ValueError(f"schema {self.name}: a bit is neither 0 nor 1 in {row}")
        description = {}
        for group in self.groups:
            if group.kind == "flag":
                description[group.name] = bool(row[self._position[group.name]])
                continue
            values = tuple(
                value
                for value, bit in zip(group.values, group.bits, strict=True)
                if row[self._position[bit]]
            )
            if group.kind == "independent":
                description[group.name] = values
            elif len(values) == 1:
                description[group.name] = values[0]
            elif not values and group.absent is not None:
                description[group.name] = group.absent
            else:
                raise ValueError(
                    f"schema {self.name}: {group.name} is {', '.join(values) or 'missing'}; "
                    f"expected one of {', '.join(group.answers)}"
                )
        return description

    def parse(self, text: str) -> Description:
        """Return the description that a person typed: "gender=female,upper_color=red,backpack".

        "backpack=no" says that there is none, "upper_color!=red" that red does not hold; values
        that do not hold, and those of an independent group, may be several.

        Raises:
            ValueError: the schema does not have an attribute; the message names the nearest.
        """
        description: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            negated = name.endswith(NOT)
            name = name.removesuffix(NOT).rstrip()
            group = self.group(name)
            if group.kind == "flag":
                value = value if equals else "yes"
                _require_known(value, tuple(_FLAG_WORDS), f"{name}: value")
                value = _FLAG_WORDS[value] != negated
            elif not equals:
                raise ValueError(f"{name} needs a value: {name}={'|'.join(group.answers)}")
            elif negated or group.kind == "independent":
                value = (*_as_tuple(description.pop(name, ())), NOT * negated + value)
            if name in description:
                raise ValueError(f"{name} is given twice in {text!r}; expected once")
            description[name] = value
        return self.validate(description)

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as plain JSON data, for a checkpoint or a manifest."""
        groups = [
            {
                "name": group.name,
                "kind": group.kind,
                "values": list(group.values),
                "absent": group.absent,
            }
            for group in self.groups
        ]
        return {
            "name": self.name,
            "groups": groups,
            "names": list(self.names),
            "absences": list(self.absences),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "AttributeSchema":
        """Return the schema that `to_dict` wrote.

        Raises:
            ValueError: `data` is something else.
        """
        try:
            groups = tuple(
                Group(group["name"], group["kind"], tuple(group["values"]), group["absent"])
                for group in data["groups"]
            )
            return cls(data["name"], groups, tuple(data["names"]), tuple(data.get("absences", ())))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an attribute schema: {error!r} in {data!r}") from error


def attribute_iou(
    a: Shaped[ArrayKind, "n attributes"], b: Shaped[ArrayKind, "m attributes"]
) -> Float[ArrayKind, "n m"]:
    """Return |S ∩ T| / |S ∪ T| for the sets of attributes that hold in each row of `a` and of `b`.

    Two empty sets have IoU 1. numpy in, numpy out; jax.numpy where either is a jax array.
    """
    xp: Any = jnp if isinstance(a, jax.Array) or isinstance(b, jax.Array) else np
    dtype = xp.result_type(float)
    a, b = xp.asarray(a, dtype), xp.asarray(b, dtype)
    intersection = a @ b.T
    union = a.sum(1)[:, None] + b.sum(1)[None, :] - intersection
    return xp.where(union == 0, 1, intersection / xp.maximum(union, 1))


def agreement(
    attributes: Shaped[ArrayKind, "images attributes"],
    said: Shaped[ArrayKind, "descriptions attributes"],
) -> Bool[ArrayKind, "images descriptions"]:
    """Whether nothing that a description says is otherwise in an image.

    numpy in, numpy out; jax.numpy where either is a jax array. [ours]

    Args:
        attributes: bits of each image.
        said: of each description, as `AttributeSchema.said` gives it.
    """
    xp: Any = jnp if isinstance(attributes, jax.Array) or isinstance(said, jax.Array) else np
    holds = xp.asarray(attributes, xp.float32)
    said = xp.asarray(said)
    to_hold, not_to_hold = (said == 1).astype(xp.float32), (said == -1).astype(xp.float32)
    return (1 - holds) @ to_hold.T + holds @ not_to_hold.T == 0


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _require_known(given: Any, allowed: tuple[str, ...], what: str) -> None:
    if given in allowed:
        return
    near = difflib.get_close_matches(str(given), allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"{what} {given!r} is unknown{hint} Expected one of: {', '.join(allowed)}")
