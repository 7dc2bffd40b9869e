"""The CLIPs of OpenAI and open_clip, and IRRA, in PyTorch, with their parameter names."""

import collections

import torch
from torch import nn
from torch.nn import functional


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class ResidualAttentionBlock(nn.Module):
    def __init__(self, width, heads, mlp_ratio=4, activation=QuickGELU):
        super().__init__()
        hidden = int(mlp_ratio * width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, hidden)), ("gelu", activation())]
        layers.append(("c_proj", nn.Linear(hidden, width)))
        self.mlp = nn.Sequential(collections.OrderedDict(layers))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x, mask=None, padding=None):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, key_padding_mask=padding, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, layers, heads, **options):
        super().__init__()
        blocks = [ResidualAttentionBlock(width, heads, **options) for _ in range(layers)]
        self.resblocks = nn.ModuleList(blocks)

    def forward(self, x, mask=None, padding=None):
        for block in self.resblocks:
            x = block(x, mask, padding)
        return x


class VisionTransformer(nn.Module):
    def __init__(self, grid, patch, stride, width, layers, dim, heads=None, **options):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, stride, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(1 + grid[0] * grid[1], width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, heads or width // 64, **options)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, dim) / width**0.5)

    def forward(self, images):
        x = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))) @ self.proj


class Bottleneck(nn.Module):
    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = None
        if stride > 1 or inputs != 4 * planes:
            conv = nn.Conv2d(inputs, 4 * planes, 1, bias=False)
            self.downsample = nn.Sequential(
                collections.OrderedDict(
                    [("-1", nn.AvgPool2d(stride)), ("0", conv), ("1", nn.BatchNorm2d(4 * planes))]
                )
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.pool(torch.relu(self.bn2(self.conv2(y))))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class AttentionPool2d(nn.Module):
    def __init__(self, grid, channels, heads, dim):
        super().__init__()
        points = 1 + grid[0] * grid[1]
        self.positional_embedding = nn.Parameter(torch.randn(points, channels) / channels**0.5)
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, dim)
        self.heads = heads

    def forward(self, x, positions=None):
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)
        x = x + (self.positional_embedding if positions is None else positions)

        def by_head(x):
            return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

        q, k, v = by_head(self.q_proj(x)), by_head(self.k_proj(x)), by_head(self.v_proj(x))
        weights = torch.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, dim=-1)
        return self.c_proj((weights @ v).transpose(1, 2).flatten(2))


class ModifiedResNet(nn.Module):
    def __init__(self, grid, width, layers, dim):
        super().__init__()
        half = width // 2
        self.conv1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(half, width, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(n) for n in (half, half, width))
        inputs = width
        for stage, depth in enumerate(layers):
            planes, blocks = width * 2**stage, []
            for block in range(depth):
                blocks.append(Bottleneck(inputs, planes, 2 if stage and not block else 1))
                inputs = 4 * planes
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.attnpool = AttentionPool2d(grid, inputs, width // 2, dim)

    def feature_map(self, x):
        for n in "123":
            x = torch.relu(getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(x)))
        x = functional.avg_pool2d(x, 2)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, images):
        return self.attnpool(self.feature_map(images))


class CLIP(nn.Module):
    """OpenAI's layout; `visual` is one of the image towers above."""

    def __init__(self, visual, width, layers, dim, heads=None, **options):
        super().__init__()
        self.visual = visual
        self.transformer = Transformer(width, layers, heads or width // 64, **options)
        self.token_embedding = nn.Embedding(49408, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(77, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, dim) / width**0.5)
        self.logit_scale = nn.Parameter(torch.tensor(4.6))

    def encode_text(self, tokens):
        length = tokens.shape[1]
        mask = torch.full((length, length), -torch.inf).triu(1)
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        return self.ln_final(self.transformer(x, mask)) @ self.text_projection


class IRRA(nn.Module):
    """IRRA's layout: CLIP, the multimodal encoder, the masked language head, the classifier."""

    def __init__(self, clip, dim, depth, categories):
        super().__init__()
        self.base_model = clip
        self.classifier = nn.Linear(dim, categories)
        self.cross_attn = nn.MultiheadAttention(dim, dim // 64, batch_first=True)
        self.cross_modal_transformer = Transformer(dim, depth, dim // 64)
        self.ln_pre_t, self.ln_pre_i, self.ln_post = (nn.LayerNorm(dim) for _ in range(3))
        layers = [("dense", nn.Linear(dim, dim)), ("gelu", QuickGELU()), ("ln", nn.LayerNorm(dim))]
        layers.append(("fc", nn.Linear(dim, 49408)))
        self.mlm_head = nn.Sequential(collections.OrderedDict(layers))

    def fuse(self, text, image, text_mask):
        image = self.ln_pre_i(image)
        x = self.cross_attn(self.ln_pre_t(text), image, image, need_weights=False)[0]
        return self.ln_post(self.cross_modal_transformer(x, padding=~text_mask))


def randomise(model, seed=0):
    """Move every parameter and statistic away from 0 and 1, which would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                tensor += noise.abs() / 2 if name.endswith("running_var") else 0.02 * noise
    return model.eval()


def small_irra(grid=(4, 2), patch=8, stride=8, width=64, dim=64, categories=5, seed=0):
    torch.manual_seed(seed)
    visual = VisionTransformer(grid, patch, stride, width, 2, dim)
    return randomise(IRRA(CLIP(visual, 64, 2, dim), dim, 2, categories), seed)
