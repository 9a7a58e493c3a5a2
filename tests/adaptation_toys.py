"""Small networks and streams for tests of adaptation; images travel as the tokens of a batch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mammopath.adaptation.descent import Descent, Moving, descend, gradient, leaves
from mammopath.adaptation.entropy import margin
from mammopath.adaptation.setup import look
from mammopath.adaptation.values import Head, Reading, Seen, SourceFacts, State, Task, Views
from mammopath.model.network import Network
from mammopath.model.vit import ViTShape
from mammopath.settings import AdaptSettings, ModelSettings
from mammopath.tensors import Batch
from mammopath.types import Modality


def det(shape: Sequence[int], scale: float = 1.0, phase: float = 0.0) -> Tensor:
    """sin(0.7 i + phase) * scale, row-major: the fixed numbers of the golden values."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (torch.sin(0.7 * i + phase) * scale).float().reshape(tuple(shape))


def batch_of(
    tokens: Tensor, *, modality: Modality = "mammogram", prefix: int = 0, first_row: int = 0
) -> Batch:
    """A batch without labels."""
    b, n = len(tokens), tokens.shape[1] - prefix
    unknown = torch.full((b,), math.nan)
    rows = torch.arange(first_row, first_row + b)
    return Batch(
        modality=modality,
        malignant=unknown,
        severity=unknown,
        domain=torch.zeros(b, dtype=torch.int64),
        patient=rows,
        pair=-torch.ones(b, dtype=torch.int64),
        row=rows,
        valid=torch.ones(b, n, dtype=torch.bool),
        lesion=torch.full((b, n), math.nan),
        tokens=tokens,
        prefix=prefix,
    )


class ConvNorm(nn.Module):
    """conv 3->8 -> BatchNorm -> ReLU -> mean -> linear 8->4, with the golden weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, track_running_stats=False)
        self.fc = nn.Linear(8, 4)
        fill(self.conv, 0.5, 0, 0.5, 1)
        fill(self.fc, 6, 2, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


class PatchNorm(nn.Module):
    """conv 3->8 of patches -> LayerNorm -> GELU -> mean -> linear 8->4, with the golden weights."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm1, self.fc = nn.Conv2d(3, 8, 4, stride=4), nn.LayerNorm(8), nn.Linear(8, 4)
        fill(self.patch, 0.8, 0, 0.8, 1)
        fill(self.fc, 3, 2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        return self.fc(nn.functional.gelu(self.norm1(tokens)).mean(1))


def fill(layer: nn.Module, w: float, w_phase: float, b: float, b_phase: float) -> None:
    """Set weight and bias to the golden numbers."""
    with torch.no_grad():
        layer.weight.copy_(det(layer.weight.shape, w, w_phase))
        layer.bias.copy_(det(layer.bias.shape, b, b_phase))


def golden_task(net: nn.Module, names: Sequence[str], settings: AdaptSettings, rule: Descent) -> Task:
    """A task on images whose classes are those of ``net``; the malignancy head is of no account."""
    net.eval().requires_grad_(False)

    def read(params: dict[str, Tensor], batch: Batch) -> Reading:
        assert batch.tokens is not None
        side = math.isqrt(batch.tokens.shape[1])
        images = batch.tokens.transpose(1, 2).unflatten(2, (side, side))
        logits = functional_call(net, dict(params), (images,))
        return Reading(logits[:, 0], logits, logits)

    source = {n: p.detach().clone() for n, p in net.named_parameters() if n in names}
    head = Head(torch.zeros(1, 4), torch.zeros(1), ("w", "b"))
    return Task(
        read,
        source,
        head,
        settings,
        rule,
        torch.full((4,), 0.25),
        0.5,
        torch.zeros(4),
        margin(4, settings.margin),
    )


def golden_images() -> Batch:
    """The golden images as tokens."""
    images = det((6, 3, 8, 8)) + det((6, 1, 1, 1), 0.8, 2)
    return batch_of(images.flatten(2).transpose(1, 2))


def first_state(task: Task) -> State:
    """The state of the source."""
    return State(Moving(task.source))


def seen(task: Task, batch: Batch) -> Seen:
    """A batch without styled views, with what the source says."""
    return look(task, Views(batch))


# ---------------------------------------------------------------- a trained source and ten shifts

WIDTH, PATCHES, PREVALENCE = 16, 9, 0.4
SHAPE = ViTShape(patch=14, width=WIDTH, depth=2, heads=2, mlp=32, grid=(3, 3), layer_scale=False)


@dataclass(frozen=True)
class Cases:
    """Content tokens and style of cases; the label moves content, and in the source a little the style."""

    label: Tensor
    content: Tensor
    style: Tensor

    def batch(self, rows: slice, style: Tensor | None = None) -> Batch:
        """Some cases as a batch, in their own style or another."""
        style = self.style[rows] if style is None else style
        tokens = self.content[rows] + (style @ directions()[2:5])[:, None]
        return replace(batch_of(tokens, prefix=1, first_row=rows.start or 0), malignant=self.label[rows])


@cache
def directions() -> Tensor:
    """Orthonormal rows: two of content, three of style, the rest noise."""
    return torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(7)))[0]


def draw_cases(count: int, g: torch.Generator, prevalence: float = PREVALENCE) -> Cases:
    """Cases of the source."""
    label = (torch.arange(count) < round(prevalence * count)).float()[torch.randperm(count, generator=g)]
    sign = (2 * label - 1)[:, None]
    content = torch.randn(count, 2, generator=g) + sign * torch.tensor([0.9, 0.0])
    lesion = (torch.arange(PATCHES + 1) < 4).float()[None, :, None]
    noise = 0.7 * torch.randn(count, PATCHES + 1, WIDTH, generator=g)
    style = 0.5 * torch.randn(count, 3, generator=g) + sign * torch.tensor([0.4, 0.0, 0.0])
    return Cases(label, 1.5 * (content @ directions()[:2])[:, None] * lesion + noise, style)


@cache
def tiny_source(seed: int = 0) -> Network:
    """A network trained on the source; tests never change it."""
    torch.manual_seed(seed)
    settings = ModelSettings(
        adapter_width=4, pool_width=8, align_width=8, readout={"mammogram": (2,), "pathology": (2,)}
    )
    network, g = Network(settings, SHAPE), torch.Generator().manual_seed(1 + seed)
    moving = Moving(
        {n: p.detach().clone() for n, p in network.named_parameters() if n.startswith("parts.mammogram")}
    )
    for _ in range(60):
        cases, params = draw_cases(64, g), leaves(moving.params)
        logit = functional_call(network, params, (cases.batch(slice(0, 64)),)).logit
        loss = nn.functional.binary_cross_entropy_with_logits(logit, cases.label)
        moving = descend(moving, gradient(loss, params), Descent("adam", 5e-3))
    network.load_state_dict(dict(moving.params), strict=False)
    return network.eval()


def source_facts() -> SourceFacts:
    """Prevalence and a probe of the source."""
    return SourceFacts(
        PREVALENCE, probe=(draw_cases(64, torch.Generator().manual_seed(99)).batch(slice(0, 64)),)
    )


Shift = Callable[[Cases, torch.Generator], Cases]

SHIFTS: dict[str, Shift] = {
    "none": lambda c, g: c,
    "offset": lambda c, g: replace(c, style=c.style + torch.tensor([1.5, 0, 0])),
    "opposite offset": lambda c, g: replace(c, style=c.style - torch.tensor([1.5, 1, 0])),
    "spread": lambda c, g: replace(c, style=c.style + 1.5 * torch.randn(c.style.shape, generator=g)),
    "faint": lambda c, g: replace(c, content=0.5 * c.content, style=0.5 * c.style),
    "loud": lambda c, g: replace(c, content=1.8 * c.content),
    "noise": lambda c, g: replace(c, content=c.content + torch.randn(c.content.shape, generator=g)),
    "reversed shortcut": lambda c, g: replace(
        c, style=c.style - 1.2 * (2 * c.label - 1)[:, None] * torch.tensor([1, 0, 0])
    ),
    "lost tokens": lambda c, g: replace(
        c, content=c.content * (torch.rand(*c.content.shape[:2], 1, generator=g) > 0.4)
    ),
    "rare": lambda c, g: replace(draw_cases(len(c.label), g, 0.15), style=c.style + 0.7),
}
"""Ways in which a site differs from the source."""


def stream_of(
    shift: str,
    *,
    count: int = 64,
    size: int = 16,
    order: str = "shuffled",
    styled: int = 3,
    seed: int = 0,
) -> tuple[Tensor, list[Views]]:
    """Labels and stream of a shifted site, shuffled or sorted by label."""
    g = torch.Generator().manual_seed(100 + list(SHIFTS).index(shift) + 1000 * seed)
    cases = SHIFTS[shift](draw_cases(count, g), g)
    if order == "sorted":
        place = cases.label.argsort(stable=True)
        cases = Cases(cases.label[place], cases.content[place], cases.style[place])
    found = []
    for start in range(0, count, size):
        rows = slice(start, min(start + size, count))
        own = cases.style[rows]
        styles = [own + 0.7 * torch.randn(own.shape, generator=g) for _ in range(styled)]
        found.append(Views(cases.batch(rows), tuple(cases.batch(rows, style) for style in styles)))
    return cases.label, found
