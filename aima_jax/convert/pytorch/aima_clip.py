"""The two towers of an AIMA model in plain PyTorch, with tokenizer and sentences.

    model = load("model.safetensors")
    features = model.encode_images([read_image(path, model.image_size) for path in paths])
    features @ model.encode_texts(["A woman wears a red top."]).T     # cosine similarities

This file stands alone: it needs PyTorch 2.4 or later, and Pillow to read pictures.
"""

import functools
import gzip
import itertools
import json
import pathlib
import re
import unicodedata

import torch
from torch import nn
from torch.nn import functional

START, END, CONTEXT = 49406, 49407, 77


class Attention(nn.Module):
    def __init__(self, width, heads, causal):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.heads, self.causal = heads, causal

    def forward(self, x):
        batch, tokens, width = x.shape
        query, key, value = (
            layer(x).reshape(batch, tokens, self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


class MLP(nn.Module):
    def __init__(self, width, inner, activation):
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.quick = activation == "quick_gelu"

    def forward(self, x):
        x = self.up(x)
        x = x * torch.sigmoid(1.702 * x) if self.quick else functional.gelu(x)
        return self.down(x)


class Block(nn.Module):
    def __init__(self, shape, causal):
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape["width"])
        self.attention = Attention(shape["width"], shape["heads"], causal)
        self.mlp_norm = nn.LayerNorm(shape["width"])
        self.mlp = MLP(shape["width"], shape["mlp_width"], shape["activation"])

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class VisionTransformer(nn.Module):
    """Normalised pixels [batch, 3, height, width] to features [batch, dim]."""

    def __init__(self, shape, image_size, dim):
        super().__init__()
        width, patch, stride = shape["width"], shape["patch_size"], shape["patch_stride"]
        rows, columns = ((side - patch) // stride + 1 for side in image_size)
        self.patch_embedding = nn.Conv2d(3, width, patch, stride, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.position_embedding = nn.Parameter(torch.zeros(1 + rows * columns, width))
        self.pre_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(shape, False) for _ in range(shape["layers"]))
        self.post_norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, dim, bias=False)

    def forward(self, pixels):
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1)
        x = self.pre_norm(torch.cat([first, patches], dim=1) + self.position_embedding)
        for block in self.blocks:
            x = block(x)
        return self.projection(self.post_norm(x[:, 0]))


class TextTransformer(nn.Module):
    """Tokens [batch, tokens] to features [batch, dim], taken at the first end of text."""

    def __init__(self, shape, dim):
        super().__init__()
        width = shape["width"]
        self.token_embedding = nn.Embedding(shape["vocabulary"], width)
        self.position_embedding = nn.Parameter(torch.zeros(shape["context_length"], width))
        self.blocks = nn.ModuleList(Block(shape, True) for _ in range(shape["layers"]))
        self.final_norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, dim, bias=False)

    def forward(self, tokens):
        x = self.token_embedding(tokens) + self.position_embedding[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        end = (tokens == END).int().argmax(dim=1)
        return self.projection(self.final_norm(x[torch.arange(len(x), device=x.device), end]))


class AimaClip(nn.Module):
    """Both towers; features are L2-normalised, so that their products are cosines."""

    def __init__(self, config, merges):
        super().__init__()
        self.config = config
        self.image_size = tuple(config["image_size"])
        self.vision = VisionTransformer(config["vision"], self.image_size, config["dim"])
        self.text = TextTransformer(config["text"], config["dim"])
        self.tokenizer = Tokenizer(merges)

    def normalize(self, images):
        """Normalise pixels of 0…255 for the image tower."""
        mean, std = (
            torch.tensor(self.config["vision"][name], device=images.device).view(3, 1, 1)
            for name in ("pixel_mean", "pixel_std")
        )
        return (images.float() / 255 - mean) / std

    @torch.no_grad()
    def encode_images(self, images):
        """Features of pictures from `read_image`."""
        images = torch.stack(list(images)).to(self.vision.class_embedding.device)
        return functional.normalize(self.vision(self.normalize(images)), dim=-1)

    @torch.no_grad()
    def encode_texts(self, texts):
        """Features of sentences."""
        device = self.vision.class_embedding.device
        tokens = torch.tensor([self.tokenizer(text) for text in texts], device=device)
        return functional.normalize(self.text(tokens), dim=-1)

    def sentence(self, bits):
        """The sentence used in training for an attribute vector."""
        return sentence(bits, self.config)


def load(path):
    """Read a model that `aima convert pytorch` wrote."""
    data = bytearray(pathlib.Path(path).read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    config = json.loads(header.pop("__metadata__")["aima_clip"])
    tensors = {}
    for name, entry in header.items():
        dtype = {"F32": torch.float32, "U8": torch.uint8}[entry["dtype"]]
        begin, stop = entry["data_offsets"]
        count = (stop - begin) // dtype.itemsize
        flat = torch.frombuffer(data, dtype=dtype, count=count, offset=start + begin)
        tensors[name] = flat.reshape(entry["shape"]).clone()
    merges = bytes(tensors.pop("tokenizer.merges").tolist())
    model = AimaClip(config, merges)
    model.load_state_dict(tensors)
    return model.eval()


def read_image(path, image_size):
    """A picture, upright and RGB, resized to height and width: uint8 [3, height, width]."""
    from PIL import Image, ImageOps

    height, width = image_size
    with Image.open(path) as picture:
        box = None
        if picture.getexif().get(0x0112, 1) == 1:  # upright
            # The JPEG decoder halves large pictures, leaving a factor of two to the filter.
            drafted = picture.draft(None, (2 * width, 2 * height))
            box = drafted[1] if drafted else None
        picture = ImageOps.exif_transpose(picture).convert("RGB")
        picture = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.reshape(height, width, 3).permute(2, 0, 1)


class Tokenizer:
    """CLIP's byte-pair encoding; a call returns 77 tokens, padded with 0."""

    _special = re.compile(r"(<\|startoftext\|>|<\|endoftext\|>)")
    _word = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")

    def __init__(self, merges):
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        self.characters = {byte: chr(byte) for byte in printable}
        others = (byte for byte in range(256) if byte not in self.characters)
        self.characters |= {byte: chr(256 + place) for place, byte in enumerate(others)}
        lines = gzip.decompress(merges).decode().split("\n")
        pairs = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
        symbols = list(self.characters.values())
        symbols += [f"{symbol}</w>" for symbol in symbols] + ["".join(pair) for pair in pairs]
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self.tokens = {symbol: token for token, symbol in enumerate(symbols)}
        self.encode_word = functools.lru_cache(maxsize=1 << 16)(self._encode_word)

    def __call__(self, text):
        ids = [START, *self.encode(text), END]
        if len(ids) > CONTEXT:
            raise ValueError(f"a text has {len(ids)} tokens; expected at most {CONTEXT}: {text!r}")
        return ids + [0] * (CONTEXT - len(ids))

    def encode(self, text):
        """The tokens of a text of any length, without start and end."""
        ids = []
        for part in self._special.split(text):
            if self._special.fullmatch(part):
                ids.append(START if "start" in part else END)
                continue
            part = unicodedata.normalize("NFC", part).replace("Σ", "σ").lower()
            for word in self._word.finditer("".join(map(_kind, part))):
                ids += self.encode_word(part[word.start() : word.end()])
        return ids

    def _encode_word(self, word):
        symbols = [self.characters[byte] for byte in word.encode()]
        symbols[-1] += "</w>"
        while len(symbols) > 1:
            best = min(itertools.pairwise(symbols), key=lambda pair: self.ranks.get(pair, 1 << 30))
            if best not in self.ranks:
                break
            merged = []
            for symbol in symbols:
                if merged and (merged[-1], symbol) == best:
                    merged[-1] += symbol
                else:
                    merged.append(symbol)
            symbols = merged
        return [self.tokens[symbol] for symbol in symbols]


@functools.cache
def _kind(character):
    """The class of a character, for `re`: letters are "a", numbers "0", other symbols "!"."""
    if character in "\x1c\x1d\x1e\x1f":
        return "!"
    if ord(character) < 128:
        return character
    if character.isspace():
        return " "
    return {"L": "a", "N": "0"}.get(unicodedata.category(character)[0], "!")


def sentence(bits, config):
    """The sentence of an attribute vector in a model's template, schema and wording."""
    wording, terse = config["wording"], config["template"] == "list"
    words, absences = wording["words"], wording["absences"]
    held = {name for name, bit in zip(config["schema"]["names"], bits, strict=True) if bit}
    clauses = [*wording["details"], *wording["predicates"]]
    things = [wording["subject"], *(thing for clause in clauses for thing in clause["things"])]
    placed = {name for thing in things for name in _attributes(thing)}
    said, absent = {}, []
    for group in config["schema"]["groups"]:
        name, values = group["name"], group["values"]
        own = [f"{name}={value}" for value in values] if values else [name]
        holding = [bit for bit in own if bit in held]
        if not holding and name in absences:
            absent.append(absences[name])
        nothing = f"{name}={group['absent']}"
        if not holding and nothing in words:
            holding = [nothing]
        for bit in holding:
            place = bit if bit in placed and bit in own else name
            said.setdefault(place, []).append(words.get(bit, bit.split("=")[-1].replace("_", " ")))
    absent = absent if config["template"] == "absence" else []
    if terse:
        told = [thing for thing in things[1:] if said.keys() & _attributes(thing)]
        return ", ".join([*(_phrase(thing, said, False) for thing in (things[0], *told)), *absent])
    text = _phrase(things[0], said, True)
    verbs = []
    for number, clause in enumerate(clauses):
        told = [_phrase(t, said, True) for t in clause["things"] if said.keys() & _attributes(t)]
        if told:
            told = f"{clause['lead']} {_listing(told)}", len(told) > 1 or " and " in _listing(told)
            if number < len(wording["details"]):
                text += f" {told[0]}"
            else:
                verbs.append(told)
    if absent:
        verbs.append((f"has {_listing(absent)}", len(absent) > 1))
    if not verbs:
        text = f"this is {text}"
    else:
        comma = any(has_list for _, has_list in verbs[:-1]) or len(verbs) > 2
        text += f" {_listing([verb for verb, _ in verbs], ',' if comma else '')}"
    return f"{text[0].upper()}{text[1:]}."


def _attributes(thing):
    return {*thing["adjectives"], thing["head"], *thing["features"]} - {""}


def _phrase(thing, said, articles):
    """A thing with its attributes: "a casual black jacket with a logo"."""
    adjectives = [_listing(said[name]) for name in thing["adjectives"] if name in said]
    noun, *others = said.get(thing["head"], [thing["noun"]])
    text = _with_article(adjectives, noun, articles)
    others += [word for name in thing["features"] for word in said.get(name, ())]
    if others:
        text += f" with {_listing([_with_article([], other, articles) for other in others])}"
    return text


def _with_article(adjectives, noun, articles):
    bare = re.sub(r"^an? ", "", noun)
    text = " ".join([*adjectives, bare])
    if not articles or bare == noun:
        return text
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _listing(items, comma=""):
    if len(items) < 2:
        return items[0]
    return f"{', '.join(items[:-1])}{comma} and {items[-1]}"
