"""Attributes of a person: groups of attributes, and the bit vectors that encode them.

A description is a dict from a group's name to a statement: True or False for a flag, else one of
the group's values, its word for absence, or a negated value such as "!red". Several values, or
several negated ones, form a tuple. Groups missing from a dict are unknown.
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

NOT = "!"  # negates the value that follows
_FLAG_WORDS = {"yes": True, "true": True, "no": False, "false": False}


@dataclasses.dataclass(frozen=True)
class Group:
    """One question about a person, with a bit for each answer.

    An `exclusive` group has exactly one value or, if `absent` is given, at most one; `absent` is
    the word for none of them. An `independent` group has any number of values. A `flag` has one bit
    and no values: it is true or false.
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
            raise ValueError(f"group {self.name}: a flag has no values, other kinds need some")
        if self.absent is not None and self.kind != "exclusive":
            raise ValueError(f"group {self.name}: only an exclusive group has a word for absence")

    @functools.cached_property
    def bits(self) -> tuple[str, ...]:
        """Names of the group's bits: "backpack" for a flag, else like "upper_color=red"."""
        if self.kind == "flag":
            return (self.name,)
        return tuple(f"{self.name}={value}" for value in self.values)

    @property
    def answers(self) -> tuple[str, ...]:
        """The values allowed in a description, including the word for absence."""
        return self.values if self.absent is None else (*self.values, self.absent)

    def check(self, value: Any) -> str | tuple[str, ...] | bool:
        """Return a statement about the group in canonical form.

        A bool for a flag; a value, or a tuple of negated ones, for an exclusive group; a tuple for
        an independent group. Tuples are in the order of the group's values.

        Raises:
            ValueError: the statement is invalid for this group.
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
                    f"some that do not hold, such as {NOT}{self.values[0]}"
                )
        for one in self.values:
            if one in given and NOT + one in given:
                raise ValueError(f"{self.name} is said to be {one}, and not to be {one}")
        return tuple(form for one in self.values for form in (one, NOT + one) if form in given)

    def statements(self, value: str | tuple[str, ...] | bool) -> dict[str, bool]:
        """Return the bits that a checked value affirms (True) and denies (False)."""
        if isinstance(value, bool):
            return {self.name: value}
        if value == self.absent:
            return dict.fromkeys(self.bits, False)
        values = (value,) if isinstance(value, str) else value
        return {f"{self.name}={one.removeprefix(NOT)}": not one.startswith(NOT) for one in values}


@dataclasses.dataclass(frozen=True)
class AttributeSchema:
    """The attributes of a dataset: ordered groups, one bit for each possible value.

    Attributes:
        name: of the schema.
        groups: the groups of attributes.
        names: of the bits in order; by default in the order of the groups.
        absences: bits that state an absence, such as PETA's `no_accessory`: they do not count as
            attributes that a person has.

    Raises:
        ValueError: `names` differs from the groups' bits, or `absences` are not among `names`.
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
            raise ValueError(f"schema {self.name}: absences not among its bits: {unknown}")
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "absences", tuple(self.absences))

    @property
    def size(self) -> int:
        """Number of bits in a vector."""
        return len(self.names)

    @functools.cached_property
    def presences(self) -> Bool[np.ndarray, "attributes"]:
        """Which bits state a presence: all but `absences`."""
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
        """Return a description, whole or partial, in the form of `decode`.

        Groups are in the schema's order, each value as returned by `Group.check`.

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

        Missing groups count as absent.

        Raises:
            ValueError: the schema does not have a group or value, an exclusive group has two, or a
                group that needs exactly one value is missing.
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
        """Return a description's statement about each bit: 1 present, -1 absent, 0 none.

        A bit vector states everything: bits that are not set are absent. In a dict, a group's
        absence denies all its bits, and a value says nothing about the group's other values.

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
            ValueError: the size is wrong, a bit is neither 0 nor 1, or an exclusive group has too
                many or too few bits.
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
        """Parse a description that a person typed: "gender=female,upper_color=red,backpack".

        "backpack=no" denies a flag, "upper_color!=red" a value; negated values, and values of an
        independent group, may be repeated.

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
        """Return the schema from `to_dict`'s data.

        Raises:
            ValueError: `data` is not a schema.
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
    """Return |S ∩ T| / |S ∪ T| for the sets of attributes in each row of `a` and of `b`.

    Two empty sets have IoU 1. numpy in, numpy out; jax.numpy if either is a jax array.
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
    """Whether no statement of a description contradicts an image.

    numpy in, numpy out; jax.numpy if either is a jax array. [ours]

    Args:
        attributes: bits of each image.
        said: of each description, as returned by `AttributeSchema.said`.
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
