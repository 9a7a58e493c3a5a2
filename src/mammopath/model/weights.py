"""Pretrained weights of the trunk: checked, loaded, fetched. Safetensors only; no pickle is ever read."""

import difflib
import shutil
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from mammopath.errors import ConfigError, WeightsError
from mammopath.files import sha256, writing
from mammopath.model.encoders import ENCODERS, Encoder
from mammopath.model.naming import State, trunk_names
from mammopath.model.network import Network
from mammopath.model.vit import ViT, ViTShape
from mammopath.settings import ModelSettings


@dataclass(frozen=True)
class WeightsReport:
    """How a weights file and an encoder fit: names of tensors, with shapes where those differ."""

    path: Path
    encoder: str
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether every tensor has its place."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        if self.fits:
            return f"{self.path}: fits {self.encoder}"
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("other shape", self.mismatched))
        lines = [f"  {kind} ({len(names)}): {', '.join(names[:4])}" for kind, names in kinds if names]
        return "\n".join([f"{self.path}: does not fit {self.encoder}", *lines])


def find_encoder(name: str) -> Encoder:
    """Look an encoder up by name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name in ENCODERS:
        return ENCODERS[name]
    near = difflib.get_close_matches(name, ENCODERS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(ENCODERS)}"
    raise ConfigError(f"model.encoder: there is no {name!r}; {hint}")


def build_network(settings: ModelSettings) -> Network:
    """The network of some settings, with its trunk loaded where they name weights.

    Raises:
        ConfigError: unknown encoder, or settings that contradict each other.
        WeightsError: the weights file is missing, damaged or of another encoder.
    """
    encoder = find_encoder(settings.encoder)
    network = Network(settings, encoder.shape, mean=encoder.mean, std=encoder.std)
    if settings.weights is not None:
        load_trunk(network, settings.weights)
    return network


def load_trunk(network: Network, path: Path) -> None:
    """Load the trunk and start norms and stems of every modality from it.

    Raises:
        WeightsError: the file is missing, damaged, a pickle, or does not fit.
    """
    state = read_state(path, network.shape)
    report = _compare(path, network.settings.encoder, state, network.trunk)
    if not report.fits:
        raise WeightsError(f"{report}\n  try: another model.encoder (`mammopath weights list`)")
    network.trunk.load_state_dict(state)
    network.start_parts()


def check_weights(path: Path, encoder: str) -> WeightsReport:
    """Compare a weights file with an encoder, tensor by tensor.

    Raises:
        ConfigError: unknown encoder.
        WeightsError: the file is missing, damaged or a pickle.
    """
    shape = find_encoder(encoder).shape
    state = read_state(path, shape)
    with torch.device("meta"):
        trunk = ViT(shape)
    return _compare(path, encoder, state, trunk)


def read_state(path: Path, shape: ViTShape) -> State:
    """Tensors of a safetensors file in float32, by the names of the trunk; see ``naming``.

    Raises:
        WeightsError: the file is missing, damaged or a pickle.
    """
    try:
        return trunk_names(safetensors.torch.load_file(path), shape)
    except FileNotFoundError:
        raise WeightsError(
            f"{path}: there is no such file\n  try: `mammopath weights list` says where to get weights"
        ) from None
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"{path}: not a readable safetensors file ({error})\n  try: save the state dict of the timm model"
            " with safetensors.torch.save_file; pickles (.bin, .pth) are never read, they can run code"
        ) from None


def get_weights(name: str, out: Path) -> str:
    """Fetch the weights of an encoder from the Hugging Face hub (needs the network).

    The file is checked against the hash that the hub publishes and against the encoder before it
    appears at ``out``.

    Returns:
        SHA-256 of the file.

    Raises:
        ConfigError: unknown encoder, or one whose authors publish no safetensors file.
        WeightsError: huggingface_hub is not installed, the hub is out of reach or refuses, or a hash differs.
    """
    encoder = find_encoder(name)
    if not encoder.file:
        place = f"see https://huggingface.co/{encoder.source}" if encoder.source else "it trains from scratch"
        raise ConfigError(f"{name}: there is no safetensors file to fetch; {place} ({encoder.licence})")
    with writing(out) as part:
        expected = _download(encoder, part)
        if (found := sha256(part)) != expected:
            raise WeightsError(f"{out}: hash is {found}, the hub says {expected}; fetch it again")
        if not (report := check_weights(part, name)).fits:
            raise WeightsError(str(report))
    return found


def _download(encoder: Encoder, part: Path) -> str:
    """Copy the file to ``part``; the SHA-256 that the hub publishes for it."""
    try:
        import huggingface_hub as hub  # optional, and the only use of the network
    except ImportError:
        raise WeightsError("fetching needs huggingface_hub: pip install 'mammopath[hub]'") from None
    try:
        facts = hub.get_hf_file_metadata(hub.hf_hub_url(encoder.source, encoder.file))
        shutil.copyfile(hub.hf_hub_download(encoder.source, encoder.file), part)
    except Exception as error:  # the hub's client raises errors of several libraries
        raise WeightsError(
            f"https://huggingface.co/{encoder.source}: cannot be fetched ({type(error).__name__}: {error})\n"
            "  try: on a machine with network, fetch the file there and pass it by path (model.weights)"
        ) from None
    return str(facts.etag)


def _compare(path: Path, encoder: str, state: State, trunk: ViT) -> WeightsReport:
    wanted = trunk.state_dict()
    differ = [n for n in wanted.keys() & state.keys() if wanted[n].shape != state[n].shape]
    return WeightsReport(
        path,
        encoder,
        missing=tuple(sorted(wanted.keys() - state.keys())),
        unexpected=tuple(sorted(state.keys() - wanted.keys())),
        mismatched=tuple(f"{n} {list(state[n].shape)} for {list(wanted[n].shape)}" for n in sorted(differ)),
    )
