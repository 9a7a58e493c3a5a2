"""The network: one trunk for both modalities, cached below the cut, hard-routed parts above it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mammopath.config import ModelSettings, TrainSettings
from mammopath.errors import WeightsError
from mammopath.model import packing, tuning
from mammopath.model.parts import Colours, ModalityParts
from mammopath.model.vit import BlockParts, Layout, ViT, ViTShape
from mammopath.tensors import Batch, Described, Output, Sample, Style
from mammopath.types import Modality

IMAGENET_MEAN: Colours = (0.485, 0.456, 0.406)
IMAGENET_STD: Colours = (0.229, 0.224, 0.225)

Precision = Literal["fp32", "bf16"]


class Network(nn.Module):
    """Stem and blocks up to the cut (``lower``), blocks above it and heads (``upper``).

    Both modalities run through the same trunk tensors; what differs is in ``parts``. A trunk from
    ``settings.weights`` is loaded by ``weights.build_network``.

    Args:
        settings: checked against the shape.
        shape: of the trunk.
        mean, std: with which the encoder normalises RGB.

    Raises:
        ConfigError: settings contradict each other or would leave an ingredient unused.
    """

    def __init__(
        self,
        settings: ModelSettings,
        shape: ViTShape,
        *,
        mean: Colours = IMAGENET_MEAN,
        std: Colours = IMAGENET_STD,
    ) -> None:
        super().__init__()
        tuning.check_settings(settings, shape)
        self.settings, self.shape, self.mean, self.std = settings, shape, mean, std
        self.trunk = ViT(shape)
        self.parts = nn.ModuleDict({m: ModalityParts(settings, shape, m) for m in settings.readout})
        self.start_parts()
        tuning.switch_trunk(self.trunk, settings)
        for parts in self.parts.values():
            cast(ModalityParts, parts).stem.requires_grad_(not self.lower_is_frozen())

    # ------------------------------------------------------------ facts

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Modalities that this network reads."""
        return tuple(self.settings.readout)

    @property
    def embedding_width(self) -> int:
        """Width of ``Output.embedding``."""
        return 3 * self.shape.width

    def cell(self, modality: Modality) -> int:
        """Side of a token's square in prepared pixels."""
        return self.shape.patch * self.settings.token_pool.get(modality, 1)

    def style_blocks(self, modality: Modality) -> tuple[int, int]:
        """First and last block in front of which a style may change; one above the readout at the least."""
        parts = self.of(modality)
        return parts.cut + 1, max(parts.top, parts.cut + 1)

    def lower_is_frozen(self) -> bool:
        """Whether ``lower`` gives the same for an image all through training, so that it can be cached."""
        return self.settings.train_trunk != "all"

    def device(self) -> torch.device:
        """Where the network is."""
        return self.trunk.cls_token.device

    def of(self, modality: Modality) -> ModalityParts:
        """The parts of one modality."""
        return cast(ModalityParts, self.parts[modality])

    # ------------------------------------------------------------ forward

    def forward(self, batch: Batch, style: Style | None = None, *, precision: Precision = "fp32") -> Output:
        """What the network says of a batch of samples or of tokens at the cut.

        Args:
            batch: of one modality.
            style: change of token statistics in front of one block above the cut.
            precision: of the frozen part below the cut; the rest follows the autocast around the call.
        """
        if batch.samples:
            batch = self._with_tokens(batch, precision)
        return self.upper(batch, style)

    def lower(
        self, samples: Sequence[Sample], modality: Modality, *, precision: Precision = "fp32"
    ) -> list[Float[Tensor, "_ d"]]:
        """Tokens of each image at the cut: prefix first, then the pooled grid row by row, zero on padding.

        Where the lower trunk is frozen they are rounded to half precision, as the cache keeps them.
        """
        cut = self.of(modality).cut
        found: dict[int, Tensor] = {}
        with self._below_the_cut(precision):
            for places, embedded in self._packed(samples, modality):
                x = embedded
                for block in self.trunk.blocks[:cut]:
                    x = block(x, self._layout)
                found |= {
                    i: self._at_cut(one, samples[i], modality) for i, one in zip(places, x, strict=True)
                }
        return [found[i] for i in range(len(samples))]

    def describe(
        self, samples: Sequence[Sample], modality: Modality, *, precision: Precision = "fp32"
    ) -> list[Described]:
        """Tokens at the cut and statistics after every block of the plain trunk, in one pass."""
        cut, prefix = self.of(modality).cut, self.shape.prefix
        found: dict[int, Described] = {}
        with torch.no_grad(), self._below_the_cut(precision):
            for places, embedded in self._packed(samples, modality):
                states, x, at_cut = [], embedded, embedded
                for number, block in enumerate(self.trunk.blocks, start=1):
                    x = block(x, self._layout)
                    states.append(packing.statistics(x[:, prefix:], x[:, 0]))
                    at_cut = x if number == cut else at_cut
                for i, one, rows in zip(places, at_cut, torch.stack(states, dim=1), strict=True):
                    found[i] = Described(self._at_cut(one, samples[i], modality), rows)
        return [found[i] for i in range(len(samples))]

    def upper(self, batch: Batch, style: Style | None = None) -> Output:
        """What the network says of a batch of tokens at the cut.

        Raises:
            ValueError: the batch holds no tokens, or the style belongs to a block that is not above the cut.
        """
        if batch.tokens is None:
            raise ValueError("upper takes tokens at the cut; call the network itself on samples")
        parts, prefix = self.of(batch.modality), self.shape.prefix
        low, high = self.style_blocks(batch.modality)
        if style is not None and not low <= style.block <= high:
            raise ValueError(
                f"style in front of block {style.block} would not run: {batch.modality} runs {low} to {high}"
            )
        x, read, layout = batch.tokens, [], _layout(batch, prefix)
        for number in range(parts.cut, parts.top + 1):
            if number > parts.cut:
                own = cast(BlockParts, parts.blocks[number - parts.cut - 1])
                x = self.trunk.blocks[number - 1](x, layout, own)
            if style is not None and style.block == number + 1:
                x = torch.cat([x[:, :prefix], style.apply(x[:, prefix:], batch.valid)], dim=1)
            if number in parts.readout:
                read.append((parts.norm or self.trunk.norm)(x))
        tokens = parts.mixed(read)
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            return parts.heads(tokens[:, 0], tokens[:, prefix:], batch)

    # ------------------------------------------------------------ weights

    def start_parts(self) -> None:
        """Take the stems and norms of every modality from the trunk; done again when the trunk is loaded."""
        for modality in self.modalities:
            self.of(modality).start_from(self.trunk, mean=self.mean, std=self.std)

    def lower_fingerprint(self) -> str:
        """Hash of all that decides the activations of the frozen trunk, except cut and token pooling."""
        digest = hashlib.sha256(repr(self.shape).encode())
        for name, value in sorted(self.state_dict().items()):
            if name.startswith("trunk.") or ".stem." in name:
                digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def parameter_groups(self, train: TrainSettings) -> list[dict[str, Any]]:
        """Groups for the optimiser; see ``tuning.parameter_groups``."""
        return tuning.parameter_groups(self, train, top=max(self.of(m).top for m in self.modalities))

    def trained_state(self) -> dict[str, Tensor]:
        """What a run must keep: all that was trained, and all where the trunk has no weights file."""
        whole = self.settings.weights is None
        return {name: p.detach() for name, p in self.named_parameters() if whole or p.requires_grad}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``trained_state`` gave.

        Raises:
            WeightsError: names or shapes differ from those of this network.
        """
        own = self.trained_state()
        differ = sorted(own.keys() ^ state.keys()) or [k for k in own if own[k].shape != state[k].shape]
        if differ:
            raise WeightsError(
                f"{len(differ)} tensors do not fit this network, first {differ[0]}:"
                " it was trained with other model settings"
            )
        self.load_state_dict(dict(state), strict=False)

    # ------------------------------------------------------------ below the cut

    @property
    def _layout(self) -> Layout:
        return Layout(self.shape.prefix)

    @contextmanager
    def _below_the_cut(self, precision: Precision) -> Iterator[None]:
        with ExitStack() as stack:
            if self.lower_is_frozen():
                stack.enter_context(torch.no_grad())
                device = self.device().type
                stack.enter_context(torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"))
            yield

    def _packed(
        self, samples: Sequence[Sample], modality: Modality
    ) -> Iterator[tuple[list[int], Float[Tensor, "b m d"]]]:
        """Embedded images, grouped by their number of real patches."""
        stem, prefix = self.of(modality).stem, self.trunk.prefix_tokens()
        grids = [packing.grid_of(s, self.shape.patch) for s in samples]
        positions = {grid: self.trunk.positions(grid) for grid in set(grids)}
        real = [packing.real_patches(s, self.shape.patch) for s in samples]
        for places in packing.groups([int(r.sum()) + len(prefix) for r in real]):
            embedded = [stem(samples[i].image[None])[0] + positions[grids[i]] for i in places]
            patches = [one[real[i]] for i, one in zip(places, embedded, strict=True)]
            yield places, torch.stack([torch.cat([prefix, p]) for p in patches])

    def _at_cut(self, x: Float[Tensor, "real d"], sample: Sample, modality: Modality) -> Float[Tensor, "m d"]:
        prefix, patch = self.shape.prefix, self.shape.patch
        packing.grid_of(sample, self.cell(modality))
        real, grid = packing.real_patches(sample, patch), packing.grid_of(sample, patch)
        patches = packing.on_grid(x[prefix:], real, grid=grid, pool=self.of(modality).token_pool)
        tokens = torch.cat([x[:prefix], patches])
        return packing.as_stored(tokens) if self.lower_is_frozen() else tokens

    def _with_tokens(self, batch: Batch, precision: Precision) -> Batch:
        tokens = self.lower(batch.samples, batch.modality, precision=precision)
        return batch.with_tokens(pad_sequence(tokens, batch_first=True))


def _layout(batch: Batch, prefix: int) -> Layout:
    grids = None if batch.grid is None else tuple((int(r), int(c)) for r, c in batch.grid.tolist())
    keep = None
    if not bool(batch.valid.all()):
        keep = torch.cat([batch.valid.new_ones(len(batch), prefix), batch.valid], dim=1)
    return Layout(prefix, keep, grids)
