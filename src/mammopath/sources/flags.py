"""Flags: what is odd about an image that is used all the same, as words in one attribute."""

from collections.abc import Iterable, Mapping

FLAGS: Mapping[str, str] = {
    "mixed_labels": "hold malignant and benign lesions",
    "mask_rescaled": "have a lesion mask of another size, which was rescaled",
    "special_view": "are spot, magnified, implant-displaced or otherwise special views",
    "view_unknown": "do not say their view",
    "side_unknown": "do not say their side",
    "side_differs": "are of another side than their table says",
    "burned_in": "say that annotations are burned into their pixels",
    "no_spacing": "have no sensible spacing",
    "for_processing": "are for processing, not for presentation",
    "retake": "are takes of a view of which a later one is there",
    "wide": "are wider than tall: rows and columns may be exchanged",
    "name_differs": "are of a patient number that stands with several names: see if it is one person",
    "no_row": "are of a study without a row in the table: they have no label",
    "window_ignored": "have a window that is no window; their full range is shown",
    "voi_table_ignored": "have a broken look-up table; their window is used in its place",
    "voi_function_unknown": "have a window of an unknown function; it is taken as linear",
    "magnification_ignored": "have a magnification that cannot be; their spacing is that on the detector",
    "side_contradicted": "tell two sides; ImageLaterality is used",
    "view_contradicted": "tell two views; ViewPosition is used, not ViewCodeSequence",
    "intent_contradicted": "are for presentation by one element and for processing by another",
    "photometric_contradicted": "have a PresentationLUTShape of the other photometric interpretation",
    "modality_untold": "do not say their modality; that they are mammograms is known from their data set",
    "bits_cleared": "had bits beside the stored ones, where old files keep overlays; they were cleared",
}
"""Flag -> what images with it are or have, to go after a count."""


def flagged(flags: Iterable[str]) -> dict[str, str]:
    """The attribute of a record with these flags; empty where there is none.

    Raises:
        KeyError: a flag that ``FLAGS`` does not explain.
    """
    names = sorted(set(flags))
    if unknown := set(names) - FLAGS.keys():
        raise KeyError(f"unknown flags: {sorted(unknown)}")
    return {"flags": "+".join(names)} if names else {}


def flags_of(attributes: Mapping[str, str]) -> tuple[str, ...]:
    """Flags in the attributes of a record."""
    return tuple(name for name in attributes.get("flags", "").split("+") if name)
