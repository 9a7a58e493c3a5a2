"""The network: one trunk for both modalities, cached below the cut, hard-routed parts above it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mammopath.errors import ConfigError, WeightsError
from mammopath.model import tuning
from mammopath.model.fusion import Fusion, Side
from mammopath.model.lower import describe, tokens_at_cut
from mammopath.model.packing import as_stored, grid_of, without_padding
from mammopath.model.parts import IMAGENET_MEAN, IMAGENET_STD, Colours, ModalityParts
from mammopath.model.vit import BlockParts, Layout, ViT, ViTShape
from mammopath.settings import ModelSettings, TrainSettings
from mammopath.tensors import Batch, Described, FusedOutput, Output, Sample, Style
from mammopath.types import Modality

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
        self.fusion = _fusion(settings, shape.width) if settings.fusion else None
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
            batch = self.with_tokens(batch, precision=precision)
        return self.upper(batch, style)

    def lower(
        self, samples: Sequence[Sample], modality: Modality, *, precision: Precision = "fp32"
    ) -> list[Float[Tensor, "_ d"]]:
        """Tokens of each image at the cut: prefix first, then the pooled grid row by row, zero on padding.

        Where the lower trunk is frozen they are rounded to half precision, as the cache keeps them.
        """
        with self._below_the_cut(precision):
            tokens = tokens_at_cut(self.trunk, self.of(modality), samples)
        return [as_stored(t) for t in tokens] if self.lower_is_frozen() else tokens

    def describe(
        self, samples: Sequence[Sample], modality: Modality, *, precision: Precision = "fp32"
    ) -> list[Described]:
        """Tokens at the cut and statistics after every block of the plain trunk, in one pass."""
        with torch.no_grad(), self._below_the_cut(precision):
            described = describe(self.trunk, self.of(modality), samples)
        return [replace(d, tokens=as_stored(d.tokens)) for d in described]

    def upper(self, batch: Batch, style: Style | None = None, *, watch: list[Tensor] | None = None) -> Output:
        """What the network says of a batch of tokens at the cut.

        Args:
            batch: of one modality.
            style: as in ``forward``.
            watch: collects the attention of each block above the cut, for explanations (``Layout.watch``).

        Raises:
            ValueError: the batch holds no tokens, or the style belongs to a block that is not above the cut.
        """
        parts, prefix = self.of(batch.modality), self.shape.prefix
        self._check_style(style, batch.modality)
        x, read, layout = _tokens(batch, prefix), [], replace(_layout(batch, prefix), watch=watch)
        whole = watch is not None or self.settings.adapter == "convpass"  # need every token at its place
        for number in range(parts.cut, parts.top + 1):
            if number > parts.cut:
                own = cast(BlockParts, parts.blocks[number - parts.cut - 1])
                block = partial(self.trunk.blocks[number - 1], parts=own)
                x = block(x, layout) if whole else without_padding(block, x, layout)
            if style is not None and style.block == number + 1:
                x = torch.cat([x[:, :prefix], style.apply(x[:, prefix:], batch.valid)], dim=1)
            if number in parts.readout:
                read.append((parts.norm or self.trunk.norm)(x))
        tokens = parts.mixed(read)
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            return parts.heads(tokens[:, 0], tokens[:, prefix:], batch)

    def fuse(
        self,
        outputs: Mapping[Modality, Output],
        batches: Mapping[Modality, Batch],
        *,
        watch: list[Tensor] | None = None,
    ) -> FusedOutput:
        """What the network says of patients from both modalities together, by their pairing keys alone.

        Args:
            outputs: of this network, of either or both modalities.
            batches: that they were made from; only ``Batch.pair`` is read.
            watch: collects the cross-modal attention, for explanations.

        Raises:
            ConfigError: ``model.fusion`` is off.
            ValueError: there are no outputs, or their tokens were dropped.
        """
        if self.fusion is None:
            raise ConfigError(
                "model.fusion is off, so there is nothing that reads both modalities: set it to true"
            )
        sides = {m: _side(outputs[m], batches[m]) for m in outputs}
        with torch.autocast(self.device().type, enabled=False):
            return self.fusion(sides.get("mammogram"), sides.get("pathology"), watch=watch)

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

    @contextmanager
    def _below_the_cut(self, precision: Precision) -> Iterator[None]:
        with ExitStack() as stack:
            if self.lower_is_frozen():
                stack.enter_context(torch.no_grad())
                device = self.device().type
                stack.enter_context(torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"))
            yield

    def _check_style(self, style: Style | None, modality: Modality) -> None:
        low, high = self.style_blocks(modality)
        if style is not None and not low <= style.block <= high:
            raise ValueError(
                f"style in front of block {style.block} would not run: {modality} takes {low} to {high}"
            )

    def with_tokens(self, batch: Batch, *, precision: Precision = "fp32") -> Batch:
        """The batch with its samples turned into tokens at the cut."""
        tokens = self.lower(batch.samples, batch.modality, precision=precision)
        grids = [grid_of(s, self.cell(batch.modality)) for s in batch.samples]
        place = torch.tensor(grids, device=batch.valid.device)
        filled = batch.with_tokens(pad_sequence(tokens, batch_first=True))
        return replace(filled, prefix=self.shape.prefix, grid=place)


def _fusion(settings: ModelSettings, width: int) -> Fusion:
    return Fusion(
        width,
        hidden=settings.align_width,
        gate=settings.pool_width,
        dropout=settings.dropout,
        hide=settings.modality_dropout,
    )


def _side(output: Output, batch: Batch) -> Side:
    if output.tokens is None:
        raise ValueError(f"fusion reads tokens, and those of the {output.modality} output were dropped")
    return Side(output.tokens, output.valid, batch.pair)


def _tokens(batch: Batch, prefix: int) -> Float[Tensor, "b m d"]:
    if batch.tokens is None:
        raise ValueError("upper takes tokens at the cut; call the network itself on samples")
    if batch.tokens.shape[1] != prefix + batch.valid.shape[1]:
        have, want = batch.tokens.shape[1], prefix + batch.valid.shape[1]
        raise ValueError(f"{have} tokens per image, but {prefix} prefix and patch tokens make {want}")
    return batch.tokens


def _layout(batch: Batch, prefix: int) -> Layout:
    grids = None if batch.grid is None else tuple((int(r), int(c)) for r, c in batch.grid.tolist())
    keep = None
    if not bool(batch.valid.all()):
        keep = torch.cat([batch.valid.new_ones(len(batch), prefix), batch.valid], dim=1)
    return Layout(prefix, keep, grids)
