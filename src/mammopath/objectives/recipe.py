"""What a training method is made of: every ingredient, its switch, its weight and its published default."""

from typing import Literal

from pydantic import Field, model_validator

from mammopath.settings import ImageScore, Settings
from mammopath.types import MODALITIES, Modality

StyleKind = Literal["none", "mixstyle", "efdmix", "dsu"]
PenaltyKind = Literal["none", "irm", "vrex", "groupdro", "coral", "dann", "cdann", "fishr", "ib_irm"]
AlignKind = Literal["none", "infonce", "supcon", "siglip"]


OF_FEATURES: tuple[PenaltyKind, ...] = ("coral", "dann", "cdann", "fishr", "ib_irm")
"""Penalties that look at what the malignancy head reads, rather than at its logits alone."""


class TaskRecipe(Settings):
    """What the network learns to say; a weight of 0 leaves a task out."""

    malignancy: float = Field(1.0, ge=0)
    """Of the malignancy of each image."""
    patient: float = Field(1.0, ge=0)
    """Of the malignancy of each patient, known from any of the images."""
    lesion: float = Field(0.0, ge=0)
    """Of the lesion map, learnt from image labels alone (multiple instance)."""
    boxes: float = Field(0.0, ge=0)
    """Of the lesion map, learnt from annotated findings where a source has them."""
    severity: float = Field(0.0, ge=0)
    """Of the severity category (CORN)."""
    ordinal: float = Field(0.0, ge=0)
    """Of each patient's BI-RADS assessment (mammograms) and pN stage (pathology), where known (CORN)."""
    fusion: float = Field(0.0, ge=0)
    """Of malignancy and severity read from both modalities of the same patient."""
    fusion_kind: Literal["late", "cross"] = "late"
    """``late`` averages the two patients' logits; ``cross`` reads the cross-attention of the network."""
    image_score: ImageScore = "pooled"
    """What an image's malignancy is read from; see ``model.image_score``, which this replaces."""
    top_share: float = Field(0.05, gt=0, le=1)
    """Share of an image's tokens that speaks for the image in the lesion map (at least one token)."""
    weighting: Literal["fixed", "uncertainty", "pcgrad"] = "fixed"
    """How the tasks are balanced: as weighted above, by learned uncertainty on top, or by projecting away
    conflicting gradients."""


class StyleRecipe(Settings):
    """Change of token statistics in training."""

    kind: StyleKind = "none"
    """Mix mean and spread, match sorted values, or perturb mean and spread."""
    alpha: float = Field(0.1, gt=0)
    """Of Beta(alpha, alpha), from which the share kept of an image's own statistics is drawn."""
    probability: float = Field(0.5, ge=0, le=1)
    """Of a change in a batch of one modality; 0 switches it off."""
    share: float = Field(0.5, gt=0, le=1)
    """Share of an image's tokens that is changed."""
    depth: float = Field(0.7, gt=0, le=1)
    """The block is drawn from this first share of the blocks above the cut."""


class InvarianceRecipe(Settings):
    """Penalty that asks the same of every training site, within a modality."""

    kind: PenaltyKind = "none"
    """Which penalty."""
    weight: float = Field(1.0, ge=0)
    """Of the penalty after annealing; 0 switches it off, and the bottleneck with it."""
    anneal: float = Field(0.0, ge=0, lt=1)
    """Share of the steps after which the weight applies; the optimiser is reset there."""
    weight_before: float = Field(1.0, ge=0)
    """Of the penalty before that."""
    bottleneck: float = Field(0.0, ge=0)
    """Of the variance of the features (IB-IRM), beside a penalty that is on, after annealing."""
    step_size: float = Field(0.01, gt=0)
    """Of the site weights (GroupDRO)."""
    memory: float = Field(0.95, ge=0, lt=1)
    """Decay of the running gradient variances (Fishr)."""
    hidden: int = Field(256, ge=1)
    """Width of the site discriminator (DANN, CDANN)."""

    @model_validator(mode="after")
    def _named_for_its_bottleneck(self) -> "InvarianceRecipe":
        if self.kind == "ib_irm" and self.bottleneck == 0:
            raise ValueError("ib_irm without a bottleneck is irm: set bottleneck above 0, or kind: irm")
        return self

    @property
    def reads_features(self) -> bool:
        """Whether it looks at what the malignancy head reads, rather than at its logits alone."""
        return self.kind in OF_FEATURES or (self.kind != "none" and self.bottleneck > 0)


class AlignRecipe(Settings):
    """Contrast of the two modalities' patients in the alignment space."""

    kind: AlignKind = "none"
    """Softmax with one true partner, softmax with many, or a sigmoid for each pair."""
    weight: float = Field(0.1, ge=0)
    """Of the loss; 0 switches it off."""
    pairing: tuple[Literal["same_patient", "same_label"], ...] = ("same_patient", "same_label")
    """Links in order of preference: the first that a patient has is used."""
    permuted_label: bool = False
    """Control: partners are shuffled, so that nothing true is left to learn."""
    memory: int = Field(256, ge=0)
    """Patients of each modality that are remembered from earlier batches; 0 uses the batch alone. True pairs
    alone want 0: heads at the start of training move too fast for what is remembered to stay a rival."""
    temperature: float = Field(0.07, gt=0)
    """At the start; learned, and never below 0.01."""
    bias: float = -10.0
    """At the start; learned (SigLIP)."""

    @model_validator(mode="after")
    def _true_pairs_only(self) -> "AlignRecipe":
        if self.kind == "infonce" and self.pairing != ("same_patient",):
            raise ValueError("infonce contrasts true pairs: set pairing: [same_patient], or kind: supcon")
        return self


class LinkRecipe(Settings):
    """Contrast of tokens that teaches the cross-attention whose tissue belongs to a suspicious region."""

    weight: float = Field(0.0, ge=0)
    """Of the loss; 0 switches it off."""
    share: float = Field(0.1, gt=0, le=1)
    """Share of a patient's mammogram tokens that ask: the most suspicious by the lesion map, at least one."""


class Trial(Settings):
    """One way to train that tuning tries."""

    rate: float = Field(1.0, gt=0)
    """Times ``train.lr``."""
    length: float = Field(1.0, gt=0)
    """Times ``train.steps``."""


class Recipe(Settings):
    """One training method: a row of the table of methods.

    A recipe whose style, invariance and align parts are off, and whose tasks are the default ones, is
    empirical risk minimisation.
    """

    caption: str = ""
    """What it is, in one line of the report."""
    modalities: tuple[Modality, ...] = Field(MODALITIES, min_length=1)
    """Which modalities are trained."""
    tasks: TaskRecipe = TaskRecipe()
    """What the network learns to say."""
    style: StyleRecipe = StyleRecipe()
    """Change of token statistics."""
    invariance: InvarianceRecipe = InvarianceRecipe()
    """Penalty across sites."""
    align: AlignRecipe = AlignRecipe()
    """Contrast across modalities."""
    link: LinkRecipe = LinkRecipe()
    """Contrast of regions and tissue, through the cross-attention."""
    average: Literal["ema", "swad"] | None = None
    """Weight averaging that belongs to the method; none leaves it to the training settings."""
    start: Literal["random", "probe"] = "random"
    """How the malignancy heads start: at random, or as a linear probe of the training sites (LP-FT)."""
    tune: tuple[Trial, ...] = ()
    """Ways to train that are tried one after the other; source validation picks. None trains once, as set."""

    @model_validator(mode="after")
    def _a_link_is_read(self) -> "Recipe":
        if self.link.weight > 0 and not (self.tasks.fusion > 0 and self.tasks.fusion_kind == "cross"):
            raise ValueError(
                "link.weight teaches the cross-attention, which nothing reads here:"
                " set tasks.fusion above 0 and tasks.fusion_kind: cross"
            )
        return self

    @model_validator(mode="after")
    def _features_are_what_is_scored(self) -> "Recipe":
        if self.tasks.image_score == "top_tokens" and self.invariance.reads_features:
            raise ValueError(
                f"invariance.kind: {self.invariance.kind} looks at pooled features, from which"
                " image_score: top_tokens reads nothing: take irm, vrex or groupdro without a bottleneck,"
                " or image_score: pooled"
            )
        return self
