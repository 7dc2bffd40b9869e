"""CLIP's byte pairs against transformers' tokenizer."""

import hashlib
import importlib.resources

import clip_reference
import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from aima_jax.text import tokenize
from aima_jax.text.tokenizer import encode, vocabulary

ODD_TEXTS = [
    "",
    " ",
    "a",
    ".",
    "...",
    "-- ... !!! ?! ;)",
    "@#$%^&*()_+={}[]|\\:;<>/~`",
    "_under_score__",
    "A man's bag",
    "don't I'LL we'Re 'TIS",
    "'s's 'sam '' ' 'd'",
    "o’clock “quoted”",
    "'ś 'ſ",
    "  long   \t\n\r\n whitespace \v\f ",
    "no\u00a0break \u3000 wide\u2003space",
    "a\u2028b\u2029c",
    "&amp; &lt;b&gt; &#39; &nbsp;",
    "<b>bold</b>",
    "<|startoftext|>hi<|endoftext|> there",
    "<|STARTOFTEXT|> <|endoftext| >",
    "a<|endoftext|>b",
    "zero\u200bwidth\ufeff",
    "\x00\x1c\x1f\x7f\x85",
    "naïve café Ünïcödé",
    "e\u0301 a\u0301\u0302 n\u0303",
    "\u1ea1\u0308 \u0323\u0307",
    "ﬁ ﬀ ŉ",
    "日本語テキスト 中文字符",
    "한국어 각",
    "हिन्दी में",
    "ไทย ภาษา",
    "עברית العربية",
    "Привет, МИР",
    "ΟΔΟΣ ΑΣ. Σίσυφος",
    "İstanbul ıI",
    "ß ẞ Ǆ ǅ Å K",
    "½ ² ٣ Ⅷ ①",
    "一二三 𝟘𝟙 𝒜𝓑",
    "👩🏽‍🦰👍 family 👨‍👩‍👧‍👦 🇩🇪",
    "☂️ ♥ ★ €5 £3.50 ¥",
    "\U0010ffff \ue000 \ufffd",
    "x" * 70,
    "7" * 70,
    "CamelCaseWORDS123abc456",
    "mid-grey, T-shirt; V-neck",
    "http://example.org/?q=a&b=c#d",
    "jekyll",
]


# Letters since Unicode 16, which Python's tables know from 3.14 on.
YOUNG = {"\u1c89", "\u1c8a"}


def reference(text: str) -> list[int]:
    return clip_reference.tokenizer()(text)["input_ids"]


def test_merges_are_openais():
    package = importlib.resources.files("aima_jax.text")
    merges = (package / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    assert hashlib.sha256(merges).hexdigest() == (
        "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
    )
    licence = (package / "bpe_simple_vocab_16e6.LICENSE").read_text()
    assert "MIT License" in licence and "Copyright (c) 2021 OpenAI" in licence


def test_vocabulary_is_complete():
    tokens, merges = vocabulary()
    assert sorted(tokens.values()) == list(range(49408))
    assert tokens == clip_reference.tokenizer().get_vocab()
    assert len(merges) == 48894 and merges[0] == ("i", "n")


def test_known_tokens():
    # As transformers' documentation prints them.
    tokens = tokenize(["a photo of a cat"])
    assert tokens.shape == (1, 77) and tokens.dtype == np.int32
    assert tokens[0, :7].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert not tokens[0, 7:].any()


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_odd_texts_equal_transformers(text):
    if "STARTOFTEXT" in text and transformers.__version__.startswith("4."):
        pytest.skip("transformers 4 writes a text in small letters before it finds special tokens")
    assert [49406, *encode(text), 49407] == reference(text)


def test_every_character_up_to_cjk_equals_transformers():
    texts = [f"a{chr(code)}1 {chr(code)}b" for code in range(0x3100) if chr(code) not in YOUNG]
    expected = clip_reference.tokenizer()(texts)["input_ids"]
    different = [
        text
        for text, ids in zip(texts, expected, strict=True)
        if [49406, *encode(text), 49407] != ids
    ]
    assert not different


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=0x2FFF, exclude_categories=["Cn", "Cs"])))
def test_any_text_equals_transformers(text):
    assert [49406, *encode(text), 49407] == reference(text)


def test_length_is_counted_with_start_and_end():
    assert tokenize(["hat " * 75])[0, -1] == 49407
    with pytest.raises(ValueError, match=r"text 1 has 78 tokens .* at most 77: 'hat hat"):
        tokenize(["fine", "hat " * 76])
    with pytest.raises(ValueError, match="has 5 tokens with start and end; expected at most 4"):
        tokenize(["one red hat"], context_length=4)
    assert tokenize(["red hat"], context_length=4).tolist() == [[49406, 736, 3801, 49407]]


def test_empty_list_and_bare_string():
    assert tokenize([]).shape == (0, 77)
    with pytest.raises(ValueError, match="takes a list of texts"):
        tokenize("a red hat")
