"""Networks whose units are coupled in all the ways that alignment knows, and some that it does not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from transfuse.models import build_cnn, build_mlp, build_resnet, build_vit
from transfuse.types import Task

TASKS = (
    Task(name="digit", kind="classification", outputs=10),
    Task(name="value", kind="regression", outputs=2, location=(1.0, 2.0), scale=(3.0, 4.0)),
)


class Dense(nn.Module):
    """Concatenated channels, BatchNorm over both, flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(14)
        self.third = nn.Conv2d(14, 10, 3)
        self.head = nn.Linear(10 * 36, 5)

    def forward(self, images: Tensor) -> Tensor:
        first = functional.relu(self.first(images))
        both = self.norm(torch.cat([first, functional.relu(self.second(first))], dim=1))
        return self.head(self.third(both).flatten(1))


class Grouped(nn.Module):
    """Depthwise and grouped convolutions, GroupNorm of the same groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16, padding=1)
        self.point = nn.Conv2d(16, 24, 1)
        self.norm = nn.GroupNorm(4, 24)
        self.grouped = nn.Conv2d(24, 32, 3, groups=4)
        self.head = nn.Linear(32, 5)

    def forward(self, images: Tensor) -> Tensor:
        hidden = functional.relu6(self.depthwise(functional.relu6(self.stem(images))))
        hidden = functional.gelu(self.norm(self.point(hidden)))
        return self.head(self.grouped(hidden).mean((2, 3)))


class ClassToken(nn.Module):
    """nn.TransformerEncoder over tokens, with a class token and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 7, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, words: Tensor) -> Tensor:
        embedded = self.embedding(words)
        tokens = torch.cat([self.token.expand(len(words), -1, -1), embedded], dim=1) + self.position
        return self.head(self.encoder(tokens)[:, 0])


class FusedAttention(nn.Module):
    """Queries, keys and values of one matrix, RMSNorm; the three are told apart in one of three ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.stem = nn.Linear(5, 16)
        self.norm = nn.RMSNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, sequence: Tensor) -> Tensor:
        hidden = self.stem(sequence)
        size, length, width = hidden.shape
        mixed = self.qkv(self.norm(hidden))
        if self.way == "unbind":
            query, key, value = mixed.reshape(size, length, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            query, key, value = (part.view(size, length, 4, 4).transpose(1, 2) for part in mixed.chunk(3, dim=-1))
        if self.way == "rotary":
            query, key = self.rotated(query), self.rotated(key)
        weights = (query @ key.transpose(-2, -1) * 0.5).softmax(dim=-1)
        hidden = hidden + self.out((weights @ value).transpose(1, 2).reshape(size, length, width))
        return self.head(hidden.mean(dim=1))

    @staticmethod
    def rotated(heads: Tensor) -> Tensor:
        angles = torch.arange(heads.shape[2])[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1], dtype=heads.dtype)
        turned = torch.cat([-heads[..., 2:], heads[..., :2]], dim=-1)
        return heads * angles.cos() + turned * angles.sin()


class Tied(nn.Module):
    """The head's weights are the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        self.hidden = nn.Linear(16, 16)
        self.head = nn.Linear(16, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(functional.gelu(self.hidden(self.embedding(words).mean(dim=1))))


class Deconvolution(nn.Module):
    """Strided and transposed convolutions, PReLU, InstanceNorm, padding, resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2)
        self.slope = nn.PReLU(8)
        self.resize = nn.Upsample(scale_factor=2)
        self.up = nn.ConvTranspose2d(8, 6, 3)
        self.norm = nn.InstanceNorm2d(6, affine=True)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.up(self.resize(self.slope(self.down(images))))
        return self.head(self.norm(functional.pad(hidden, (1, 1)))).amax((2, 3))


class Residual(nn.Module):
    """A stream with a layer from itself to itself, and einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 12)
        self.block = nn.Linear(12, 12)
        self.matrix = nn.Parameter(torch.randn(9, 12))
        self.head = nn.Linear(9, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.stem(inputs))
        hidden = hidden + torch.relu(self.block(hidden))
        return self.head(torch.einsum("nw,vw->nv", hidden, self.matrix))


class Ordered(nn.Module):
    """A cumulative sum: the order of the units before it means something."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 12)
        self.second = nn.Linear(12, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.cumsum(functional.relu(self.second(functional.relu(self.first(inputs)))), dim=-1))


class Hidden(nn.Module):
    """What happens between the layers is out of PyTorch's sight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 12)
        self.second = nn.Linear(12, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        ordered = torch.tensor(self.first(inputs).tolist(), dtype=inputs.dtype).cumsum(dim=-1)
        return self.second(ordered)


def images(channels: int = 1) -> Tensor:
    return torch.randn(4, channels, 8, 8, generator=torch.Generator().manual_seed(0))


def vectors(*shape: int) -> Tensor:
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))


def words() -> Tensor:
    return torch.arange(24).reshape(4, 6) % 11


Made = Callable[[], nn.Module]
SHIPPED: dict[str, tuple[Made, Tensor]] = {
    "mlp": (lambda: build_mlp(input_shape=(64,), tasks=TASKS, widths=[24, 16]), vectors(64)),
    "cnn": (lambda: build_cnn(input_shape=(1, 8, 8), tasks=TASKS, channels=[6, 8], batch_norm=True), images()),
    "resnet": (lambda: build_resnet(input_shape=(1, 8, 8), tasks=TASKS, channels=[6, 8], blocks=[2, 1]), images()),
    "vit": (lambda: build_vit(input_shape=(1, 8, 8), tasks=TASKS, width=16, heads=4, dropout=0.1), images()),
}
OWN: dict[str, tuple[Made, Tensor]] = {
    "dense": (Dense, images(3)),
    "grouped": (Grouped, images(3)),
    "class_token": (ClassToken, words()),
    "unbind": (lambda: FusedAttention("unbind"), vectors(6, 5)),
    "chunk": (lambda: FusedAttention("chunk"), vectors(6, 5)),
    "rotary": (lambda: FusedAttention("rotary"), vectors(6, 5)),
    "tied": (Tied, words()),
    "deconvolution": (Deconvolution, images(3)),
    "residual": (Residual, vectors(5)),
    "ordered": (Ordered, vectors(5)),
}


def seeded(make: Made, seed: int = 0) -> nn.Module:
    """A network with random running statistics, scales and shifts, so that each of them counts."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make()
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.data = 0.5 + torch.rand(tensor.shape)
    return network.eval()
