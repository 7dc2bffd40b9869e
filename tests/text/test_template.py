"""Prompts of every real category, of random and partial descriptions, and the text table."""

import functools
import json
import re

import clip_reference
import descriptions
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompts import (
    WORDINGS,
    categories,
    each_name,
    each_schema,
    prompts,
)

from aima_jax.text import (
    TEMPLATES,
    PromptTemplate,
    Wording,
    build_text_table,
)
from tfds_builders.market1501_attribute import wording as market1501
from tfds_builders.market1501_attribute.schema import SCHEMA as market1501_schema
from tfds_builders.pa100k.schema import SCHEMA as pa100k_schema
from tfds_builders.peta.schema import SCHEMA as peta_schema
from tfds_builders.synthetic_pedestrians.schema import SCHEMA as synthetic_schema

# Nouns of the prompts that are plural or uncountable: they get no article.
WITHOUT_ARTICLE = (
    "hair|view|pants|bottoms|trousers|shorts|jeans|capris|boots|shoes|sneakers|sandals|stockings|"
    "footwear|glasses|sunglasses|headphones|bags|items|belongings|accessories|stripes"
)


@pytest.fixture(scope="module")
def rendered(request):
    """Render a schema's categories once for all tests: a list of (bits, sentence)."""

    @functools.cache
    def render(schema, name):
        template = prompts(schema, name)
        return [(bits, template.render(bits)) for bits in categories(request, schema)]

    return render


@each_name
@each_schema
def test_distinct_categories_give_distinct_sentences(rendered, schema, name):
    texts = [sentence.text for _, sentence in rendered(schema, name)]
    assert len(set(texts)) == len(texts)


@each_name
@each_schema
def test_every_bit_that_holds_is_said_once(rendered, schema, name):
    absent_bits = {group.name: group.bits for group in schema.groups}
    for bits, sentence in rendered(schema, name):
        held = {bit for bit, value in zip(schema.names, bits, strict=True) if value}
        said = [phrase.name for phrase in sentence.phrases]
        assert len(set(said)) == len(said), sentence
        assert held <= set(said), sentence
        # What is said beyond is an absence, under the name of a group that has no bit set.
        for group in set(said) - held:
            assert not held.intersection(absent_bits[group]), sentence


@each_name
@each_schema
def test_phrases_cover_whole_words_and_do_not_touch(rendered, schema, name):
    for _, sentence in rendered(schema, name):
        end = -1
        for phrase in sentence.phrases:
            assert end < phrase.start < phrase.end
            end = phrase.end
            words = sentence.text[phrase.start : phrase.end]
            assert re.fullmatch(r"[A-Za-z]+([ -][A-Za-z]+)*", words), words
            assert not re.match(r"(a|an|and|with) ", words), words
            around = f" {sentence.text} "[phrase.start], f"{sentence.text} "[phrase.end]
            assert around[0] == " " and around[1] in " ,.", sentence


@each_name
@each_schema
def test_sentences_are_well_formed(rendered, schema, name):
    for _, sentence in rendered(schema, name):
        text = sentence.text
        if name == "list":
            assert re.fullmatch(r"[A-Za-z-]+(,? [A-Za-z-]+)*", text), text
            assert not re.search(r"\b(a|an)\b", text), text
            continue
        assert re.fullmatch(r"[A-Z][a-z]*(,? [A-Za-z-]+)*\.", text), text
        assert re.search(r"^This is | wears | carries | has ", text), text
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text), text
        assert not re.search(r"\b(a|an|and|with|wears|carries|has|in)[,.]", text), text
        assert not re.search(r"\b(and|with|wears|carries|has|in|is) (and|with)\b", text), text
        for countable in re.findall(r"\ban? ([^,.]*?)(?= and | with |[,.])", text):
            assert not re.search(rf"\b({WITHOUT_ARTICLE})$", countable), text


@each_name
@each_schema
def test_table_equals_transformers_tokens_and_their_offsets(request, rendered, schema, name):
    table = build_text_table(categories(request, schema), prompts(schema, name))
    sentences = [sentence for _, sentence in rendered(schema, name)]
    assert table.sentences == tuple(sentence.text for sentence in sentences)
    expected = clip_reference.tokenizer()(list(table.sentences), return_offsets_mapping=True)
    lengths = [len(ids) for ids in expected["input_ids"]]
    width = table.tokens.shape[-1]
    assert max(lengths) <= width <= min(77, max(lengths) + 7)
    assert width % 8 == 0 or width == 77

    for row, sentence in enumerate(sentences):
        ids, offsets = expected["input_ids"][row], expected["offset_mapping"][row]
        assert table.tokens[row, 0, : len(ids)].tolist() == ids
        assert not table.tokens[row, 0, len(ids) :].any()
        owner = [-1] * len(sentence.text)
        for index, (_, start, end) in enumerate(sentence.phrases):
            owner[start:end] = [index] * (end - start)
        owners = [set(owner[start:end]) for start, end in offsets[1:-1]]
        assert all(len(indices) == 1 for indices in owners), "a token reaches across"
        phrase_ids = [-1, *(indices.pop() for indices in owners)]
        phrase_ids += [-1] * (width - len(phrase_ids))
        assert table.phrase_ids[row, 0].tolist() == phrase_ids


def test_absence_states_every_flag_of_market1501(rendered):
    for bits, sentence in rendered(market1501_schema, "absence"):
        description = market1501_schema.decode(bits)
        for flag in ("hat", "backpack", "bag", "handbag"):
            assert (f"no {flag}" in sentence.text) == (not description[flag])


@each_name
@each_schema
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_unknown_is_not_mentioned(schema, name, data):
    description = data.draw(descriptions.partial(schema))
    template = prompts(schema, name)
    sentence = template.render(description)
    bits = {bit: group.name for group in schema.groups for bit in group.bits}
    groups = {bits.get(p.name, p.name.partition("!=")[0]) for p in sentence.phrases}
    assert groups <= description.keys()
    said = {phrase.name for phrase in sentence.phrases}
    for group, value in description.items():
        values = [value] if isinstance(value, str) else value if isinstance(value, tuple) else []
        assert {f"{group}={one}" for one in values} & bits.keys() <= said
        assert (group in said) or value is not True
    backwards = dict(reversed(description.items()))
    again = template.render(backwards)
    assert (again.text, again.phrases) == (sentence.text, sentence.phrases)


@each_name
@each_schema
def test_a_description_without_absences_gives_the_sentence_of_its_bits(rendered, schema, name):
    for bits, sentence in rendered(schema, name)[::50]:
        described = {
            group: value
            for group, value in schema.decode(bits).items()
            if any(schema.group(group).statements(value).values())
            or f"{group}={value}" in WORDINGS[schema.name].words
        }
        if name != "absence":
            assert prompts(schema, name).render(described).text == sentence.text


@pytest.mark.parametrize(
    ("schema", "typed", "sentence", "terse"),
    [
        (
            market1501_schema,
            "gender=female,age=young,hair=long,sleeve=short,upper_color=red,lower_type=pants,"
            "lower_length=long,lower_color=black,backpack,bag,hat=no,handbag=no",
            "A young woman with long hair wears a short-sleeved red top and long black pants, "
            "carries a backpack and a bag, and has no hat and no handbag.",
            "young woman, long hair, short-sleeved red top, long black pants, backpack, bag, "
            "no hat, no handbag",
        ),
        (market1501_schema, "", "This is a person.", "person"),
        (
            market1501_schema,
            "gender=male,age=old,hat=no",
            "An old man has no hat.",
            "old man, no hat",
        ),
        (
            market1501_schema,
            "lower_color=none,upper_color=green",
            "A person wears a green top and has no dominant bottom color.",
            "person, green top, no dominant bottom color",
        ),
        (
            pa100k_schema,
            "gender=male,view=side,upper_pattern=logo,lower_type=long_coat,lower_type=trousers,"
            "lower_pattern=stripes,object_in_front",
            "A man in side view wears a logo top, a long coat and striped trousers, "
            "and carries an object in front.",
            "man, side view, logo top, long coat, striped trousers, object in front",
        ),
        (
            peta_schema,
            "gender=male,age=16-30,age=31-45,hair=bald,hair=short,hair_color=gray,"
            "upper_color=orange,upper_color=blue,upper_type=jacket,upper_type=t_shirt,v_neck,"
            "footwear=shoes,footwear=stockings,footwear_color=white,umbrella,carrying_other",
            "A bald young and adult man with short gray hair wears a blue and orange jacket with "
            "a T-shirt and a V-neck and white shoes with stockings, and carries an umbrella and "
            "other items.",
            "bald young and adult man, short gray hair, blue and orange jacket with T-shirt and "
            "V-neck, white shoes with stockings, umbrella, other items",
        ),
        (
            synthetic_schema,
            "gender=female,hair=long,view=back,lower_type=skirt,lower_color=white,bag=none",
            "A woman with long hair in back view wears a white skirt and has no bag.",
            "woman, long hair, back view, white skirt, no bag",
        ),
        (
            synthetic_schema,
            "upper_color!=red,upper_color!=blue,hair!=long,view!=front,gender!=male,bag!=handbag,"
            "hat=no,lower_type!=skirt",
            "A person has no man, no long hair, no hat, no front view, no red top, no blue top, "
            "no skirt and no handbag.",
            "person, no man, no long hair, no hat, no front view, no red top, no blue top, "
            "no skirt, no handbag",
        ),
        (
            peta_schema,
            "upper_color=red,upper_color!=blue,v_neck=no,upper_pattern!=logo",
            "A person wears a red top and has no blue top, no logo and no V-neck.",
            "person, red top, no blue top, no logo, no V-neck",
        ),
        (pa100k_schema, "gender!=male", "This is a woman.", "woman"),
    ],
)
def test_what_the_prompts_say(schema, typed, sentence, terse):
    description = schema.parse(typed)
    texts = [prompts(schema, name).render(description).text for name in TEMPLATES]
    assert texts == [sentence, terse, sentence]


@each_name
@each_schema
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_an_absence_is_said_in_every_template(schema, name, data):
    description = data.draw(descriptions.partial(schema))
    template = prompts(schema, name)
    for group, value in description.items():
        if value is False:
            without = {key: one for key, one in description.items() if key != group}
            stated, unstated = template.render(description), template.render(without)
            assert stated.text != unstated.text
            position = schema.names.index(group)
            assert (stated.said[position], unstated.said[position]) == (-1, 0)
            assert [p.name for p in stated.phrases].count(group) == 1


@pytest.mark.parametrize(
    ("typed", "description"),
    [
        ("gender=female, no hat", {"gender": "female", "hat": False}),
        ("No Hat", {"hat": False}),
        ("no bag,upper_color!=red", {"bag": "none", "upper_color": ("!red",)}),
        ("hat,boots", {"hat": True, "boots": True}),
        ("a woman with a red top", None),
        ("hat with a feather", None),
        ("no umbrella", None),
    ],
)
def test_what_a_person_types(typed, description):
    assert prompts(synthetic_schema).parse(typed) == description


def test_a_typed_query_says_what_is_wrong_with_it():
    with pytest.raises(ValueError, match="the query is empty"):
        prompts(synthetic_schema).parse(" , ")
    with pytest.raises(ValueError, match="did you mean 'upper_color'"):
        prompts(synthetic_schema).parse("upper_colour=red,no hat")


@each_schema
def test_a_wording_survives_json(schema):
    wording = WORDINGS[schema.name]
    assert Wording.from_dict(json.loads(json.dumps(wording.to_dict()))) == wording


def test_a_wording_must_have_a_place_for_every_group():
    with pytest.raises(ValueError, match=r"no place for .*glasses.* of the schema 'pa100k'"):
        PromptTemplate(pa100k_schema, "list", market1501.WORDING)
    with pytest.raises(ValueError, match="not a wording"):
        Wording.from_dict({"words": {}})


@each_schema
def test_other_words_and_another_order_say_the_same(request, schema):
    generator = np.random.default_rng(0)
    rows = categories(request, schema)[::20][:50]
    plain = prompts(schema)
    texts = set()
    for bits in rows:
        wording = plain.wording.with_synonyms(generator).reordered(generator)
        sentence = PromptTemplate(schema, "sentence", wording).render(bits)
        names = sorted(phrase.name for phrase in sentence.phrases)
        assert names == sorted(phrase.name for phrase in plain.render(bits).phrases)
        texts.add(sentence.text)
    assert len(texts) == len(rows)
    unchanged = texts & {plain.render(bits).text for bits in rows}
    assert len(unchanged) < len(rows) / 4


def test_phrases_are_the_words_of_the_value():
    description = {"gender": "male", "upper_color": "red", "sleeve": "short", "hat": False}
    sentence = prompts(market1501_schema, "absence").render(description)
    assert [(name, sentence.text[start:end]) for name, start, end in sentence.phrases] == [
        ("gender=male", "man"),
        ("sleeve=short", "short-sleeved"),
        ("upper_color=red", "red"),
        ("hat", "no hat"),
    ]
    # A man has no bit on PA-100K: it is the group that is said.
    sentence = prompts(pa100k_schema).render({"gender": "male"})
    assert sentence.phrases == (("gender", 10, 13),)


def test_unknown_templates_are_named():
    with pytest.raises(ValueError, match=r"no prompt template 'photo'.*sentence, list, absence"):
        prompts(pa100k_schema, "photo")
    with pytest.raises(ValueError, match="did you mean 'gender'"):
        prompts(pa100k_schema).render({"gendr": "male"})
