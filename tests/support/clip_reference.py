"""transformers' CLIP tokenizer, built without network from the merges in the package."""

import functools
import gzip
import importlib.resources
import json
import pathlib
import tempfile

import transformers
from tokenizers.pre_tokenizers import ByteLevel


@functools.cache
def tokenizer() -> transformers.PreTrainedTokenizerBase:
    file = importlib.resources.files("aima_jax.text") / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(file.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    # The published vocabulary begins with the 256 byte characters, those that print first, and
    # both groups are ascending.
    characters = sorted(ByteLevel.alphabet())
    symbols = [*characters, *(character + "</w>" for character in characters)]
    symbols += [merge.replace(" ", "") for merge in merges]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {symbol: token for token, symbol in enumerate(symbols)}
    if int(transformers.__version__.split(".")[0]) >= 5:
        pairs = [tuple(merge.split()) for merge in merges]
        return transformers.CLIPTokenizer(vocab=vocabulary, merges=pairs)
    with tempfile.TemporaryDirectory() as folder:  # 4 reads files
        paths = [pathlib.Path(folder, name) for name in ("vocab.json", "merges.txt")]
        paths[0].write_text(json.dumps(vocabulary), encoding="utf-8")
        paths[1].write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
        return transformers.CLIPTokenizerFast(*map(str, paths))
