"""The PyTorch side of the benchmarks: IRRA's way with transformers' CLIP, at our weights."""

# PyTorch keeps what a module holds under types of its own, which are seldom those of its parts.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false

import collections
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from contest import Answer, clear_peak, host_peak, matmul_rate
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

END_OF_TEXT, CONTEXT = 49407, 77


def training_step(dtype: str, folder: pathlib.Path, steps: int) -> Callable[[], Answer]:
    """Make the peer's step ready, from what ours has left in a folder; a turn is as ours."""
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    task = json.loads((folder / "task.json").read_text())
    model = load(folder).train().to(device)
    members = collections.defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members[tuple(task["groups"][name])].append(parameter)
    groups = [
        {"params": params, "lr": task["learning_rate"] * factor, "weight_decay": decay}
        for (factor, decay), params in members.items()
    ]
    optimizer = torch.optim.Adam(
        groups, betas=task["betas"], eps=task["epsilon"], fused=on_gpu or None
    )
    batches = [rows_of(path, device) for path in sorted(folder.glob("rows-*.npz"))]
    compute = torch.compile(model) if on_gpu else model
    taken = 0
    clear_peak()

    def take_steps() -> Answer:
        nonlocal taken
        count = 1 if taken < len(batches) else steps
        start, losses = time.perf_counter(), torch.empty(0)
        for _ in range(count):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
                losses = compute(batches[taken % len(batches)])
            losses.sum().backward()
            optimizer.step()
            taken += 1
        values = losses.tolist()
        if on_gpu:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / count
        peak = torch.cuda.max_memory_allocated() if on_gpu else host_peak()
        return {"seconds": seconds, "losses": values, "bytes": peak}

    return take_steps


def matmul() -> Callable[[], Answer]:
    """Make the same product ready as ours."""
    on_gpu = torch.cuda.is_available()
    size, dtype = (8192, torch.bfloat16) if on_gpu else (2048, torch.float32)
    x = torch.randn((size, size), dtype=dtype, device="cuda" if on_gpu else "cpu")

    def multiply(count: int) -> None:
        y = x
        for _ in range(count):
            y = x @ y
        if on_gpu:
            torch.cuda.synchronize()

    return lambda: matmul_rate(size, multiply)


def load(folder: pathlib.Path) -> "Peer":
    """The model with our weights."""
    task = json.loads((folder / "task.json").read_text())
    model = Peer(task["model"], task["grid"])
    weights = load_file(folder / "weights.safetensors")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if set(missing) != {"clip.logit_scale"} or unexpected:
        raise ValueError(f"weights do not fit: missing {missing}, unexpected {unexpected}")
    model.clip.logit_scale.requires_grad_(False)
    return model


def rows_of(path: pathlib.Path, device: str) -> dict[str, torch.Tensor]:
    """Rows as IRRA's loader gives them: sentences of 77 tokens, a label at each masked one."""
    with np.load(path) as file:
        rows = dict(file)
    padding = ((0, 0), (0, CONTEXT - rows["tokens"].shape[1]))
    sentences = {
        name: np.pad(rows[name], padding).astype(np.int64) for name in ("tokens", "masked_tokens")
    }
    labels = np.zeros_like(sentences["tokens"])
    row, column = np.nonzero(rows["mask"])
    labels[row, rows["positions"][row, column]] = rows["targets"][row, column]
    taken = {
        "image": np.ascontiguousarray(rows["image"].transpose(0, 3, 1, 2)),
        "labels": labels,
        "category": rows["category"].astype(np.int64),
        "attributes": rows["attributes"],
    }
    return {n: torch.from_numpy(x).to(device) for n, x in (taken | sentences).items()}


class ResidualBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )

    def forward(self, x, padding):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, key_padding_mask=padding, need_weights=False)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))


class Peer(nn.Module):
    """transformers' CLIP with IRRA's fusion module, masked language head and classifier."""

    def __init__(self, config: Mapping[str, Any], grid: Sequence[int]):
        super().__init__()
        clip = config["clip"]
        dim = clip["dim"]
        towers = {
            f"{name}_config": {
                "hidden_size": clip[name]["width"],
                "intermediate_size": clip[name]["mlp_width"],
                "num_hidden_layers": clip[name]["layers"],
                "num_attention_heads": clip[name]["heads"],
                "hidden_act": clip[name]["activation"],
            }
            for name in ("text", "vision")
        }
        towers["text_config"]["eos_token_id"] = END_OF_TEXT
        towers["vision_config"] |= {"image_size": 224, "patch_size": clip["vision"]["patch_size"]}
        self.clip = transformers.CLIPModel(transformers.CLIPConfig(**towers, projection_dim=dim))
        # transformers knows squares only; IRRA gives the table the grid of its own pictures.
        embeddings = self.clip.vision_model.embeddings
        embeddings.position_embedding = nn.Embedding(1 + grid[0] * grid[1], clip["vision"]["width"])
        embeddings.interpolate_pos_encoding = lambda *_: embeddings.position_embedding.weight[None]

        self.ln_pre_t, self.ln_pre_i, self.ln_post = (nn.LayerNorm(dim) for _ in range(3))
        self.cross_attn = nn.MultiheadAttention(dim, dim // 64, batch_first=True)
        blocks = [ResidualBlock(dim, dim // 64) for _ in range(config["fusion_depth"])]
        self.cross_modal_transformer = nn.ModuleDict({"resblocks": nn.ModuleList(blocks)})
        self.mlm_head = nn.ModuleDict(
            {
                "dense": nn.Linear(dim, dim),
                "ln": nn.LayerNorm(dim),
                "fc": nn.Linear(dim, clip["text"]["vocabulary"]),
            }
        )
        self.classifier = nn.Linear(dim, config["num_categories"])

    def encode_image(self, images):
        vision = self.clip.vision_model
        tokens = vision(images, interpolate_pos_encoding=True).last_hidden_state
        return self.clip.visual_projection(vision.post_layernorm(tokens))

    def encode_text(self, tokens):
        return self.clip.text_projection(self.clip.text_model(tokens).last_hidden_state)

    def forward(self, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The five losses, in the order of `aima_jax.losses.LOSSES`."""
        tokens, masked_tokens, category = rows["tokens"], rows["masked_tokens"], rows["category"]
        image_tokens = self.encode_image(rows["image"])
        text_tokens = self.encode_text(tokens)
        batch = torch.arange(len(category), device=category.device)
        image = image_tokens[:, 0].float()
        text = text_tokens[batch, (tokens == END_OF_TEXT).int().argmax(dim=1)].float()

        # The head over all 77 positions, as in IRRA's code; positions without a label do not count.
        masked_text = self.ln_pre_t(self.encode_text(masked_tokens))
        seen = self.ln_pre_i(image_tokens)
        x = self.cross_attn(masked_text, seen, seen, need_weights=False)[0]
        ends = (masked_tokens == END_OF_TEXT).int().argmax(dim=1, keepdim=True)
        padding = torch.arange(tokens.shape[1], device=tokens.device)[None] > ends
        for block in self.cross_modal_transformer["resblocks"]:
            x = block(x, padding)
        x = self.mlm_head["dense"](self.ln_post(x))
        x = self.mlm_head["ln"](x * torch.sigmoid(1.702 * x))
        words = self.mlm_head["fc"](x).float().flatten(0, 1)
        prediction = functional.cross_entropy(words, rows["labels"].flatten(), ignore_index=0)

        v, t = functional.normalize(image), functional.normalize(text)
        logits = v @ t.T / 0.02
        info_nce = functional.cross_entropy(logits, batch) + functional.cross_entropy(
            logits.T, batch
        )
        same = (category[:, None] == category[None]).float()
        q = same / same.sum(dim=1, keepdim=True)
        sdm = _kl(logits.log_softmax(dim=1), q) + _kl(logits.T.log_softmax(dim=1), q)
        identity = functional.cross_entropy(
            self.classifier(image).float(), category
        ) + functional.cross_entropy(self.classifier(text).float(), category)
        sets = rows["attributes"].float()
        both = sets @ sets.T
        iou = both / (sets.sum(dim=1)[:, None] + sets.sum(dim=1)[None] - both)
        attribute_iou = _kl((t @ t.T / 0.1).log_softmax(dim=1), (iou / 0.1).softmax(dim=1))
        return torch.stack([info_nce / 2, sdm, identity / 2, prediction, attribute_iou])


def _kl(log_p, q):
    return (log_p.exp() * (log_p - torch.log(q + 1e-8))).sum(dim=1).mean()


def encoding(dtype: str, folder: pathlib.Path) -> Callable[[], Answer]:
    """Make transformers' image encoding ready, from what ours has left in a folder."""
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    clip = load(folder).clip.eval().to(device)
    with np.load(folder / "pictures.npz") as file:
        images = torch.from_numpy(file["images"].transpose(0, 3, 1, 2).copy()).to(device)
    encode = torch.compile(clip.get_image_features) if on_gpu else clip.get_image_features
    clear_peak()

    def once() -> Answer:
        start = time.perf_counter()
        with (
            torch.inference_mode(),
            torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"),
        ):
            features = encode(images, interpolate_pos_encoding=True).pooler_output.float().cpu()
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() if on_gpu else host_peak()
        features = functional.normalize(features).numpy()
        return {"seconds": seconds, "bytes": peak, "features": features}

    return once
