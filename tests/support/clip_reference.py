"""transformers' CLIP tokenizer, built without network from the merges in the package."""

import functools
import gzip
import importlib.resources

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer


@functools.cache
def tokenizer() -> CLIPTokenizer:
    file = importlib.resources.files("aima_jax.text") / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(file.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    # The published vocabulary begins with the 256 byte characters, those that print first, and
    # both groups are ascending.
    characters = sorted(ByteLevel.alphabet())
    symbols = [*characters, *(character + "</w>" for character in characters)]
    symbols += [merge.replace(" ", "") for merge in merges]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={symbol: token for token, symbol in enumerate(symbols)},
        merges=[tuple(merge.split()) for merge in merges],
    )
