"""Filters on facts, as `camera in (1, 2) and time >= "2024-05-01"`: parsed, never evaluated.

Names of columns, constants, comparisons, `in`, `and`, `or`, `not` and brackets: the syntax is
Python's, and its parser reads it.
"""

import ast
import json
import operator
from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Bool, Shaped

Columns = Mapping[str, Shaped[np.ndarray, "gallery"]]

_MAX_LENGTH = 10_000
_COMPARISONS = {
    ast.Eq: (operator.eq, "=="),
    ast.NotEq: (operator.ne, "!="),
    ast.Lt: (operator.lt, "<"),
    ast.LtE: (operator.le, "<="),
    ast.Gt: (operator.gt, ">"),
    ast.GtE: (operator.ge, ">="),
}
_SYNTAX = 'expected such as: camera in (1, 2) and not (time < 100 or place == "hall")'


def parse_where(text: str) -> ast.expr:
    """Parse a filter.

    Raises:
        ValueError: it is something else; the message says what.
    """
    try:
        if len(text) > _MAX_LENGTH:
            raise SyntaxError(f"it has more than {_MAX_LENGTH} characters")
        tree = ast.parse(text.strip(), mode="eval").body
        _check(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ValueError(
            f"the filter {text[:200]!r} cannot be read ({reason}); {_SYNTAX}"
        ) from None
    return tree


def require_columns(tree: ast.expr, columns: Collection[str]) -> set[str]:
    """The columns that a parsed filter names.

    Raises:
        ValueError: one is not among `columns`.
    """
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if unknown := sorted(named - {*columns}):
        raise ValueError(
            f"the gallery has no column {unknown[0]!r}; it has {', '.join(sorted(columns))}"
        )
    return named


def matching(tree: ast.expr, columns: Columns) -> Bool[np.ndarray, "gallery"]:
    """Which pictures a parsed filter keeps.

    Args:
        tree: as `parse_where` returns it.
        columns: an array for each column that it names, all of one length.

    Raises:
        ValueError: it compares a text with a number.
    """
    if isinstance(tree, ast.BoolOp):
        combine = np.logical_and if isinstance(tree.op, ast.And) else np.logical_or
        return combine.reduce([matching(value, columns) for value in tree.values])
    if isinstance(tree, ast.UnaryOp):
        return ~matching(tree.operand, columns)
    assert isinstance(tree, ast.Compare)
    kept, left = np.bool_(True), tree.left
    for op, right in zip(tree.ops, tree.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            values = [_constant(each) for each in right.elts]  # pyright: ignore[reportAttributeAccessIssue]
            column = _values(left, columns)
            for value in values:
                _require_comparable(column, np.asarray(value), tree)
            found = np.logical_or.reduce([column == value for value in values])
            kept = kept & (found if isinstance(op, ast.In) else ~found)
        else:
            before, after = _values(left, columns), _values(right, columns)
            _require_comparable(before, after, tree)
            kept = kept & _COMPARISONS[type(op)][0](before, after)
        left = right
    return np.asarray(kept)


def milvus_filter(tree: ast.expr) -> str:
    """A parsed filter as Milvus writes it."""
    if isinstance(tree, ast.BoolOp):
        word = " and " if isinstance(tree.op, ast.And) else " or "
        return "(" + word.join(milvus_filter(value) for value in tree.values) + ")"
    if isinstance(tree, ast.UnaryOp):
        return f"(not {milvus_filter(tree.operand)})"
    assert isinstance(tree, ast.Compare)
    parts, left = [], tree.left
    for op, right in zip(tree.ops, tree.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            values = [_constant(each) for each in right.elts]  # pyright: ignore[reportAttributeAccessIssue]
            text = f"{_word(left)} in {json.dumps(values)}"
            parts.append(text if isinstance(op, ast.In) else f"(not ({text}))")
        else:
            parts.append(f"{_word(left)} {_COMPARISONS[type(op)][1]} {_word(right)}")
        left = right
    return "(" + " and ".join(parts) + ")"


def _check(tree: ast.expr) -> None:
    if isinstance(tree, ast.BoolOp):
        for value in tree.values:
            _check(value)
    elif isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        _check(tree.operand)
    elif isinstance(tree, ast.Compare):
        sides = [tree.left, *tree.comparators]
        for op, left, right in zip(tree.ops, sides[:-1], sides[1:], strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                if not isinstance(left, ast.Name):
                    raise ValueError("before `in` is a column's name")
                if not isinstance(right, ast.Tuple | ast.List) or not right.elts:
                    raise ValueError("after `in` are values in brackets, as (1, 2), or (1,) of one")
                for each in right.elts:
                    _constant(each)
            elif type(op) not in _COMPARISONS:
                raise ValueError("`is` is not a comparison of facts: write ==")
            elif not isinstance(left, ast.Name) and not isinstance(right, ast.Name):
                raise ValueError("a comparison needs a column's name on one side")
            else:
                for side in (left, right):
                    if not isinstance(side, ast.Name):
                        _constant(side)
    else:
        raise ValueError(f"{ast.unparse(tree)} is not a comparison")


def _constant(node: ast.expr) -> int | float | str:
    minus = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    inner = node.operand if isinstance(node, ast.UnaryOp) and minus else node
    value = inner.value if isinstance(inner, ast.Constant) else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return -value if minus else value
    if isinstance(value, str) and not minus:
        return value
    raise ValueError(f"{ast.unparse(node)} is neither a number nor a text in quotes")


def _values(node: ast.expr, columns: Columns) -> np.ndarray:
    if not isinstance(node, ast.Name):
        return np.asarray(_constant(node))
    return columns[node.id]


def _require_comparable(left: np.ndarray, right: np.ndarray, tree: ast.expr) -> None:
    if (left.dtype.kind == "U") != (right.dtype.kind == "U"):
        raise ValueError(
            f"{ast.unparse(tree)} compares a text with a number: only texts are in quotes"
        )


def _word(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else json.dumps(_constant(node))
