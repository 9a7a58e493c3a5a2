"""Settings of every command and part: frozen pydantic models with a default for every key."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mammopath.types import Modality


class Settings(BaseModel):
    """Base of all settings: frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# ---------------------------------------------------------------- data


Unit = Literal["image", "slide", "breast", "patient"]


class SourceSettings(Settings):
    """One data set on disk."""

    source: str
    """Name of the data set: those of ``mammopath index`` (see ``docs/datasets``)."""
    root: Path
    """Folder as downloaded, or the file for ``table``. Relative to the working directory."""
    domain: str = ""
    """Overrides the domain of every record of this source."""
    partial: bool = False
    """Use a part of a public data set on purpose: do not ask for its known counts."""


class DataSettings(Settings):
    """Which images."""

    manifests: tuple[Path, ...] = ()
    """Manifests written by ``mammopath index``."""
    sources: tuple[SourceSettings, ...] = ()
    """Data sets to index on the way, in place of manifests."""
    standard_views: bool = True
    """Leave out mammograms that their source flags as special views (spot, magnified, implant-displaced, ...)
    or as takes of a view of which a later one is there."""
    unit: Unit = "image"
    """Unit of evaluation: one record (image, slide), or what several make (breast, patient)."""
    units: dict[str, Unit] = {}
    """Units of single sites, by name or pattern (``camelyon17_*``), where they have one of their own."""
    validation: float = Field(0.2, gt=0, lt=0.5)
    """Share of each training site's patients that selects the model (``source_val``)."""
    test_share: float = Field(0.3, gt=0, lt=0.9)
    """Share of a site's patients that tests the in-domain reference, where no official split exists."""
    limit: int = Field(0, ge=0)
    """Use at most so many images per site, whole patients, drawn with the seed; 0 for all. For trials."""


# ---------------------------------------------------------------- prepare


class MammogramSettings(Settings):
    """From mammogram pixels to the tensor of the stem."""

    height: int = 448
    """Rows of the prepared image; a multiple of the patch size. Mammograms are tall."""
    width: int = 224
    """Columns of the prepared image; a multiple of the patch size."""
    crop: bool = True
    """Crop to the breast; survives film labels, borders and tape."""
    background: bool = False
    """Keep the film beside the breast, as without ``crop``; otherwise it becomes padding, without tokens."""
    low: float = Field(0.005, ge=0, lt=0.5)
    """Quantile of breast intensities that becomes 0."""
    high: float = Field(0.998, gt=0.5, le=1)
    """Quantile of breast intensities that becomes 1."""
    um: float = Field(0.0, ge=0)
    """Resample to so many micrometres per pixel, and cut off or pad to the size; images without spacing are
    then left out. 0 fits the breast to the size."""
    pectoral: Literal["keep", "exclude", "remove"] = "keep"
    """The pectoral muscle of MLO views: keep it, exclude it from the quantiles, or also make it padding."""


class PathologySettings(Settings):
    """From histology pixels to the tensor of the stem."""

    height: int = 224
    """Largest number of rows of a prepared field; a multiple of the patch size."""
    width: int = 224
    """Largest number of columns of a prepared field; a multiple of the patch size."""
    um: float = Field(0.0, ge=0)
    """Resample to so many micrometres per pixel where the spacing is known; 0 fits the field to the size."""


class AugmentSettings(Settings):
    """Random changes of training images: draw, then apply."""

    flip: bool = True
    """Mirror and turn pathology by quarters; mammograms keep their chest wall on the left."""
    rotate: float = Field(10.0, ge=0, le=45)
    """Largest rotation of a mammogram in degrees."""
    zoom: float = Field(0.1, ge=0, lt=0.5)
    """Largest relative change of scale."""
    gamma: float = Field(0.4, ge=0)
    """Spread of log gamma of a mammogram."""
    contrast: float = Field(0.3, ge=0, lt=1)
    """Largest relative change of contrast and brightness of a mammogram."""
    blur: float = Field(0.8, ge=0)
    """Largest sigma of a Gaussian blur in pixels."""
    noise: float = Field(0.03, ge=0)
    """Largest standard deviation of added noise."""
    hed: float = Field(0.05, ge=0)
    """Spread of haematoxylin-eosin-DAB jitter of pathology."""
    brightness: float = Field(0.1, ge=0, lt=1)
    """Largest relative change of brightness of pathology."""


class PrepareSettings(Settings):
    """From a record to a sample."""

    mammogram: MammogramSettings = MammogramSettings()
    pathology: PathologySettings = PathologySettings()
    augment: AugmentSettings = AugmentSettings()
    draws: int = Field(2, ge=0)
    """Augmented views cached per image where the trunk is frozen; 0 trains on the plain view only."""


# ---------------------------------------------------------------- model

ImageScore = Literal["pooled", "top_tokens"]

AdapterKind = Literal["none", "adaptformer", "lora", "convpass"]


class ModelSettings(Settings):
    """The network."""

    encoder: str = "vit_tiny_demo"
    """A key of the table of encoders (``mammopath weights list``)."""
    weights: Path | None = None
    """Pretrained weights of the trunk (safetensors); none trains from scratch."""
    train_trunk: Literal["none", "last_k", "all"] = "none"
    """Which trunk blocks are trained."""
    last_k: int = Field(2, ge=1)
    """How many of the last read blocks are trained with ``train_trunk: last_k``."""
    readout: dict[Modality, tuple[int, ...]] = {"mammogram": (4,), "pathology": (4,)}
    """Blocks that are read, counted from 1; several are mixed with learned weights."""
    cut: dict[Modality, int] = {"mammogram": 0, "pathology": 0}
    """Block below and at which a frozen trunk's activations are cached; 0 is the patch embedding. At or below
    the lowest readout block."""
    token_pool: dict[Modality, int] = {"mammogram": 1, "pathology": 1}
    """Average so many by so many tokens at the cut, to make the part above it cheaper."""
    adapter: AdapterKind = "adaptformer"
    """Modality-specific adapter in each block above the cut; fresh ones change nothing."""
    adapter_width: int | None = Field(None, ge=1)
    """Bottleneck of the adapter (rank for LoRA); none takes the published one: 64 for AdaptFormer, else 8."""
    adapter_scale: float | None = None
    """Scale of the adapter's output; none takes the published one: 0.1 for AdaptFormer, 1 for others."""
    modality_norms: bool = True
    """LayerNorm affines of their own for each modality above the cut."""
    pool_width: int = 128
    """Hidden width of gated-attention pooling."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout in front of the heads."""
    align_width: int = 256
    """Width of the alignment space."""
    image_score: ImageScore = "pooled"
    """What an image's malignancy is read from: its pooled tokens, or the highest tokens of the lesion map."""
    top_share: float = Field(0.02, gt=0, le=1)
    """Share of an image's tokens that ``image_score: top_tokens`` averages (at least one)."""
    tile: dict[Modality, int] = {}
    """Side in prepared pixels of overlapping tiles that go through the trunk below the cut one by one, for
    images larger than the trunk is used to; none sends images whole. A multiple of a token's side."""
    fusion: bool = False
    """Cross-attention of mammogram tokens over the same patient's pathology tokens, with heads of its own."""
    modality_dropout: float = Field(0.2, ge=0, lt=1)
    """Share of true pairs of which fusion sees one modality alone in training, so that it can do without."""


# ---------------------------------------------------------------- train


class TrainSettings(Settings):
    """The training loop."""

    method: str = "erm"
    """A key of the table of methods."""
    overrides: dict[str, Any] = {}
    """Changes to single keys of the method's recipe."""
    steps: int = Field(300, ge=1)
    """Optimisation steps."""
    batch: int = Field(16, ge=2)
    """Images per training site and step."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW for heads, adapters and norms."""
    trunk_lr: float = Field(1e-5, gt=0)
    """Peak learning rate of trunk blocks, where they are trained."""
    layer_decay: float = Field(0.75, gt=0, le=1)
    """Learning rate of a trunk block relative to the block above it."""
    weight_decay: float = Field(0.05, ge=0)
    """Of AdamW; norms, biases and scalars are left out."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; then it falls as a cosine."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    validate_every: int = Field(50, ge=1)
    """Steps between two validations."""
    views: int = Field(2, ge=1)
    """Images of one patient, of one class, that come together in a step where a patient has as many, so that
    the attention over a patient's images is trained; 1 draws every image for itself."""
    balance: Literal["none", "label"] = "label"
    """Draw classes equally often within a site, or as they come."""
    average: Literal["none", "ema", "swad"] = "none"
    """Weight averaging."""
    ema: float = Field(0.99, gt=0, lt=1)
    """Decay of the exponential moving average."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the trained part."""
    trunk_precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the frozen part below the cut; activations are kept in half precision either way. bf16
    pays on processors that have it (AVX-512, AMX, GPUs: see `mammopath doctor`) and is slow on all others."""


# ---------------------------------------------------------------- adapt


class GuardSettings(Settings):
    """When an adaptation is accepted, judged without labels; otherwise the source model stays."""

    enabled: bool = True
    """Off accepts everything that is finite; for experiments that show what the guard prevents."""
    min_cases: int = Field(48, ge=2)
    """Fewer cases than this cannot be judged: the source predicts. One pair out of order among fewer is more
    than half a point of AUC where one case in ten is malignant."""
    agreement: float = Field(0.9, ge=0, le=1)
    """Least share of cases called as by the augmentation-averaged source, unless the source agrees less."""
    prevalence: float = Field(0.05, ge=0, le=1)
    """Largest shift of the predicted prevalence that does not bring it nearer to the source's."""
    flips: float = Field(0.05, ge=0, le=1)
    """Largest share of the source's probe set whose call changes."""
    one_class: float = Field(0.98, gt=0.5, le=1)
    """Share of cases in one class that counts as a collapse, unless the source says the same."""
    spread: float = Field(0.1, ge=0)
    """Scores that spread less than this share of the source's have collapsed."""
    auc_loss: float = Field(0.005, ge=0, le=1)
    """Largest AUC that the change of order can cost, whatever the labels: a certificate, which suffices."""
    rarest: float = Field(0.1, gt=0, le=0.5)
    """Share of malignant cases that the certificate still holds for."""
    likely_loss: float = Field(0.015, ge=0, le=1)
    """Without a certificate: largest AUC that the change of order can cost where as many cases are malignant
    as in training; 0 asks for a certificate always."""
    stable_loss: float = Field(0.01, ge=0, le=1)
    """Without a certificate: largest AUC that pairs can cost which the plain and all style-only views order
    alike."""
    probe_loss: float = Field(0.0, ge=-1, le=1)
    """Without a certificate: largest fall of AUC on the labelled probe of the source, which there must be."""
    patience: int = Field(2, ge=1)
    """Rollbacks after which a stream is no longer adapted."""
    window: int = Field(512, ge=16)
    """Newest cases of a stream that are judged together."""
    probe_every: int = Field(64, ge=1)
    """Cases between two looks at the probe set, where weights move."""


class AdaptSettings(Settings):
    """Test-time adaptation on unlabelled cases of one modality of one site."""

    batch: int = Field(32, ge=1)
    """Cases per batch of a stream."""
    views: int = Field(4, ge=0)
    """Style-only views of each case that is adapted to; ``tact`` needs as many as ``directions``."""
    mode: Literal["calibrate", "online", "episodic"] = "calibrate"
    """Adapt on the first cases, then freeze; adapt along the stream; or adapt to each batch afresh."""
    cases: int = Field(0, ge=0)
    """Cases that calibrate, the first in the order of a hash of their names; 0 for all."""
    epochs: int = Field(1, ge=0)
    """Least passes over the calibration cases; 0 changes nothing."""
    least_steps: int = Field(50, ge=0)
    """Least steps where weights move in calibration: few cases are passed over more often than ``epochs``."""
    steps: int = Field(1, ge=0)
    """Updates per batch of an episode."""
    head: Literal["malignancy", "severity"] = "malignancy"
    """Whose uncertainty entropy methods reduce."""
    lr: float | None = Field(None, gt=0)
    """Learning rate; none takes the method's own."""
    margin: float = Field(0.4, gt=0)
    """Largest entropy of a reliable case as a share of ln C (EATA, SAR; DeYO's is 0.1 more)."""
    reliable: float = Field(0.4, ge=0, le=1)
    """Where less than this share of the source's own probe would count as reliable, the largest entropy is
    that quantile of the probe. 0 leaves the published rule, by which an unsure source learns nothing."""
    drop: float = Field(0.2, ge=-1, le=1)
    """Least fall of the called class's probability when the middle of the image is hidden (DeYO)."""
    fisher: float = Field(2000.0, ge=0)
    """Weight of EATA's anti-forgetting term; needs a probe set of the source."""
    entropy: float = Field(0.1, ge=0)
    """Weight of the entropy of ``style``."""
    anchor: float = Field(0.01, ge=0)
    """Weight of the squared distance of ``style`` from the source's parameters."""
    radius: float = Field(0.05, gt=0)
    """Largest distance of ``style`` from the source, relative to the length of what moves."""
    balance: float = Field(1.0, ge=0)
    """Weight of entropy and of the divergence from the prior in ``tact_adapt``."""
    supports: int | None = Field(20, ge=1)
    """Supports per class of ``t3a``; none keeps all, up to 4096."""
    directions: int = Field(2, ge=0)
    """Style directions that ``tact`` removes."""
    guard: GuardSettings = GuardSettings()
    """The guard."""


class PatchSettings(Settings):
    """Patches of whole slides, and their features."""

    side: int = Field(224, ge=1)
    """Side of a patch in pixels; a multiple of the trunk's patch size."""
    um: float = Field(0.5, gt=0)
    """Micrometres per pixel of a patch; 0.5 is 20x by custom."""
    overlap: float = Field(0.0, ge=0, lt=1)
    """Share of a side that neighbours have in common."""
    tissue: float = Field(0.25, ge=0, le=1)
    """Least share of a patch that must be tissue."""
    mask_um: float = Field(8.0, gt=0)
    """Micrometres per pixel at which tissue is looked for."""
    stain: Literal["none", "macenko", "reinhard"] = "none"
    """Stain normalisation, fitted to the tissue of each slide at low power and applied to its patches."""
    read: Literal["mean", "cls"] = "mean"
    """What of a patch is kept: the mean of its tokens, or the CLS token."""
    batch: int = Field(64, ge=1)
    """Patches in memory at a time."""


class CohortSlideSettings(Settings):
    """Whole slides of a cohort: a slide is an image, a patch, read at the cut, is one of its tokens."""

    patches: PatchSettings = PatchSettings()
    """Patches; ``model.cut.pathology`` is the block that they are read after."""
    bag: int = Field(256, ge=1)
    """Patches of a slide in a training step, drawn anew each time."""
    look: int = Field(2048, ge=1)
    """Patches of a slide, evenly over all of them, that it is judged by: blocks above the cut relate each to
    every other, so a whole slide would not fit."""


class RunSettings(Settings):
    """``mammopath train``: data, model and training of one run."""

    name: str = "run"
    """Stands in reports."""
    data: DataSettings = DataSettings()
    prepare: PrepareSettings = PrepareSettings()
    model: ModelSettings = ModelSettings()
    slides: CohortSlideSettings = CohortSlideSettings()
    """Whole slides, where there are any."""
    train: TrainSettings = TrainSettings()
    select: Literal["source_val", "last", "oracle"] = "source_val"
    """Rule that picks the step; ``oracle`` looks at the held-out site and is labelled as an upper bound."""
    seed: int = 0
    """Of splits, batches, augmentation and initialisation."""
    cache: Path | None = None
    """Folder of cached activations; none keeps them beside the output."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    for_prediction: bool = True
    """Also keep in a run what predictions of new patients need: how far to trust it, reference cases,
    examples. A table of many methods does without."""
    workers: int = Field(0, ge=0)
    """Processes at the same time, for features of a frozen trunk and for the runs of a study; 0 for as many
    as there are cores."""
    threads: int = Field(1, ge=1)
    """CPU threads of one process. Part of the numbers: sums are rounded in another order with more."""


class LodoSettings(RunSettings):
    """``mammopath lodo``: folds x methods x seeds of one run."""

    held_out: tuple[str, ...] = ()
    """Sites to leave out, one at a time; none means every site."""
    methods: tuple[str, ...] = ("erm",)
    """Rows of the table: keys of the table of methods, ``logreg`` (frozen trunk + logistic regression) or
    ``cnn`` (a small convolutional network from scratch)."""
    adaptation: tuple[str, ...] = ("none",)
    """Test-time adaptations, a row each; ``none`` is always made."""
    adapt: AdaptSettings = AdaptSettings()
    """Settings of the adaptations."""
    seeds: tuple[int, ...] = (0,)
    """One run each; splits and initialisation differ."""
    in_domain: bool = True
    """Also train with every site present, for the in-domain AUC and the gap."""
    bootstrap: int = Field(2000, ge=100)
    """Draws of the patient-cluster bootstrap."""
    interval: Literal["percentile", "bca"] = "percentile"
    """Limits of the bootstrap in results lines: plain quantiles, or bias-corrected and accelerated ones, at
    one more draw per patient. The AUC of sites with one case per patient has DeLong's limits either way."""
