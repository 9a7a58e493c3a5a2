"""The people of the phantom: what is true of each of them, drawn from a seed."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from mammopath.settings import Settings


class PhantomSettings(Settings):
    """A synthetic cohort with known truth, to test software with."""

    sites: tuple[str, ...] = ("site_a", "site_b", "site_c")
    """Keys of the table of sites; each makes mammograms and histology."""
    patients: int = Field(40, ge=1)
    """Patients per site."""
    fields: int = Field(2, ge=1)
    """Histology fields per patient."""
    prevalence: dict[str, float] = Field(default_factory=dict)
    """Share of malignant cases at a site, where it is not the site's own."""
    contrast: float = Field(1.0, ge=0)
    """Visibility of lesions in mammograms; 0 leaves nothing to find."""
    spurious: float = Field(0.0, ge=0, le=1)
    """How strongly a meaningless mark follows the label: 0 not at all, 1 always."""
    spurious_at: dict[str, float] = Field(default_factory=dict)
    """Strength at a site, where it is not that of all: what follows the label everywhere alike is no shortcut
    that any training method could tell from the lesion."""
    reversed: tuple[str, ...] = ("site_c",)
    """Sites where the mark follows the opposite label, so that what has learnt it fails there."""
    seed: int = 0
    """Of everything."""


@dataclass(frozen=True)
class Case:
    """What is true of one patient, whom both modalities show.

    Attributes:
        name: unique in the cohort, starts with the site.
        site: where both examinations were made.
        severity: 0 normal, 1 benign, 2 in situ, 3 invasive.
        form: 0 to 1, independent of the label: elongated masses go with elongated nuclei.
        fibrosis: 0 to 1, independent of the label: dense breasts go with dense stroma.
        side: L or R.
        marked: whether the images carry the meaningless mark.
        seed: of all that is left to chance in its images.
    """

    name: str
    site: str
    severity: int
    form: float
    fibrosis: float
    side: str
    marked: bool
    seed: tuple[int, ...]

    @property
    def malignant(self) -> bool:
        """In situ and invasive count as malignant."""
        return self.severity >= 2

    def rng(self, *purpose: int) -> np.random.Generator:
        """Chance for one purpose; the same whatever else was drawn before."""
        return np.random.default_rng([*self.seed, *purpose])


def draw_cases(settings: PhantomSettings, site: str, prevalence: float) -> Iterator[Case]:
    """The patients of one site; they do not change when other sites come or go.

    Exactly the rounded share ``prevalence`` is malignant, in a random order.
    """
    site_seed = (settings.seed, zlib.crc32(site.encode()))
    chance = np.random.default_rng(site_seed)
    malignant = np.arange(settings.patients) < round(prevalence * settings.patients)
    chance.shuffle(malignant)
    for number, is_malignant in enumerate(malignant):
        follows = chance.random() < (1 + settings.spurious_at.get(site, settings.spurious)) / 2
        yield Case(
            name=f"{site}_{number:04d}",
            site=site,
            severity=int(chance.choice([2, 3], p=[0.3, 0.7]) if is_malignant else chance.choice([0, 1])),
            form=float(chance.random()),
            fibrosis=float(chance.random()),
            side=str(chance.choice(["L", "R"])),
            marked=bool((is_malignant == follows) ^ (site in settings.reversed)),
            seed=(*site_seed, number),
        )
