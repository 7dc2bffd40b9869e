"""CLIP's byte-pair encoding in plain Python, without a network: the merges are package data.

It returns the tokens of transformers' `CLIPTokenizer`. OpenAI's own tokenizer first repairs broken
text and HTML entities; this one does not change the text. Characters newer than Python's Unicode
tables count as symbols, not letters.
"""

import functools
import gzip
import importlib.resources
import itertools
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

VOCABULARY_SIZE = 49408
START_TOKEN, END_TOKEN = VOCABULARY_SIZE - 2, VOCABULARY_SIZE - 1
MASK_TOKEN = 49405  # the last of the merges: "jekyll", which no prompt contains
PAD_TOKEN = 0
CONTEXT_LENGTH = 77

_MERGES = 49152 - 256 - 2
_SPECIAL = {"<|startoftext|>": START_TOKEN, "<|endoftext|>": END_TOKEN}
_SPECIAL_PATTERN = re.compile("(" + "|".join(map(re.escape, _SPECIAL)) + ")")
_WORD_PATTERN = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


def tokenize(
    texts: Sequence[str], context_length: int = CONTEXT_LENGTH
) -> Int32[np.ndarray, "n context_length"]:
    """Return the tokens of each text between start and end token, padded with 0.

    Raises:
        ValueError: a text has more than `context_length` tokens with start and end tokens.
    """
    if isinstance(texts, str):
        raise ValueError("tokenize takes a list of texts; found one str")
    tokens = np.full((len(texts), context_length), PAD_TOKEN, np.int32)
    for row, text in enumerate(texts):
        ids = [START_TOKEN, *encode(text), END_TOKEN]
        if len(ids) > context_length:
            raise ValueError(
                f"text {row} has {len(ids)} tokens with start and end; expected at most "
                f"{context_length}: {text!r}"
            )
        tokens[row, : len(ids)] = ids
    return tokens


def encode(text: str) -> list[int]:
    """Return the byte-pair tokens of a text of any length, without start and end token."""
    ids = []
    for part in _SPECIAL_PATTERN.split(text):
        if part in _SPECIAL:
            ids.append(_SPECIAL[part])
            continue
        part = unicodedata.normalize("NFC", part)
        # Only Python uses the final form of sigma; CLIP lowercases one character at a time.
        part = part.replace("Σ", "σ").lower()
        for word in _WORD_PATTERN.finditer(part.translate(_SKELETON)):
            ids.extend(_encode_word(part[word.start() : word.end()]))
    return ids


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the token of every symbol and the ordered merges, for use in other tokenizers."""
    _, ranks, tokens = _vocabulary()
    return tokens | _SPECIAL, list(ranks)


class _Skeleton(dict):
    """Map a non-ASCII letter to "a", a number to "0", a space to " ", any other symbol to "!".

    Python's `re` does not support Unicode categories. On the skeleton of a text, `_WORD_PATTERN`
    does not need them, and its matches have the same positions as the words in the text.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in "\x1c\x1d\x1e\x1f":  # whitespace only in Python
            kind = "!"
        elif code < 128:
            kind = character
        elif character.isspace():
            kind = " "
        else:
            kind = {"L": "a", "N": "0"}.get(unicodedata.category(character)[0], "!")
        self[code] = kind
        return kind


_SKELETON = _Skeleton()


@functools.cache
def _vocabulary() -> tuple[dict[int, str], dict[tuple[str, str], int], dict[str, int]]:
    """Return the character that stands for each byte, the rank of each merge, and all tokens."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    characters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in characters)
    characters |= {byte: chr(256 + i) for i, byte in enumerate(others)}

    file = importlib.resources.files("aima_jax.text") / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(file.read_bytes()).decode().split("\n")
    pairs = (line.split() for line in lines[1 : 1 + _MERGES])  # line 0 is the version
    merges = [(left, right) for left, right in pairs]

    symbols = list(characters.values())
    symbols += [f"{symbol}</w>" for symbol in symbols]
    symbols += ["".join(pair) for pair in merges]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    return characters, ranks, {symbol: token for token, symbol in enumerate(symbols)}


@functools.lru_cache(maxsize=1 << 16)
def _encode_word(word: str) -> tuple[int, ...]:
    """Merge the bytes of a word, always the pair of lowest rank first."""
    characters, ranks, tokens = _vocabulary()
    symbols = [characters[byte] for byte in word.encode()]
    symbols[-1] += "</w>"
    while len(symbols) > 1:
        best = min(itertools.pairwise(symbols), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        merged = []
        for symbol in symbols:
            if merged and (merged[-1], symbol) == best:
                merged[-1] += symbol
            else:
                merged.append(symbol)
        symbols = merged
    return tuple(tokens[symbol] for symbol in symbols)
