"""Random descriptions by a schema, for property tests."""

from hypothesis import strategies as st

from aima_jax.attributes import AttributeSchema, Group


def answer(group: Group) -> st.SearchStrategy:
    """Anything that `decode` may give for a group."""
    if group.kind == "flag":
        return st.booleans()
    if group.kind == "exclusive":
        return st.sampled_from(group.answers)
    subsets = st.sets(st.sampled_from(group.values))
    return subsets.map(lambda held: tuple(value for value in group.values if value in held))


def whole(schema: AttributeSchema) -> st.SearchStrategy[dict]:
    """Descriptions that cover every group."""
    return st.fixed_dictionaries({group.name: answer(group) for group in schema.groups})


def partial(schema: AttributeSchema) -> st.SearchStrategy[dict]:
    """Descriptions that leave groups out."""
    optional = {group.name: answer(group) for group in schema.groups}
    return st.fixed_dictionaries({}, optional=optional)
