"""What a model card says of where a study's models come from: encoder, data sets, their licences."""

from typing import Any

from mammopath.bench import Bench
from mammopath.model.encoders import ENCODERS
from mammopath.objectives.methods import METHODS
from mammopath.settings import LodoSettings
from mammopath.sources import SOURCES

OWN = "Apache-2.0"
"""Licence of this program."""


def card_facts(bench: Bench, settings: LodoSettings) -> dict[str, Any]:
    """Plain values for JSON: the encoder, each data set, each method in a line."""
    encoder = ENCODERS[settings.model.encoder]
    known = [name for name in dict.fromkeys(bench.sources) if name in SOURCES]
    return {
        "licence": OWN,
        "stamp": bench.stamp,
        "encoder": {
            "name": settings.model.encoder,
            "licence": encoder.licence,
            "source": encoder.source,
            "pretrained": settings.model.weights is not None,
            "trained_part": settings.model.train_trunk,
        },
        "sources": [
            {"name": name, "about": SOURCES[name].about, "licence": SOURCES[name].licence} for name in known
        ],
        "methods": {name: METHODS[name].caption for name in settings.methods if name in METHODS},
    }
