"""Outlines from the files of annotation tools: ASAP XML, Aperio ImageScope XML, GeoJSON (QuPath)."""

import json
from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException

from mammopath.errors import DataError
from mammopath.images.annotations_geojson import read_geojson
from mammopath.images.annotations_xml import read_xml
from mammopath.images.outlines import Drawing

MAX_BYTES = 24_000_000
"""Of an annotation file. One of nothing but elements takes fifty times as much memory, and half a second for
each million bytes; the largest of CAMELYON16 have a few million."""

_START = 4096
"""Bytes in which the first character that is no space must come."""


def read_drawing(path: Path) -> Drawing:
    """Read the outlines of one annotation file; its content tells the format.

    Document types, entities and references to other files are refused in XML. Outlines that enclose nothing
    and drawings that are no outlines (points, rulers) are listed in ``skipped``.

    Raises:
        DataError: no such file, empty, too large, none of the formats, or broken.
    """
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise DataError(f"{path}: has {size} bytes, not 1 to {MAX_BYTES}; export the annotations again")
        with path.open("rb") as file:
            start = file.read(_START).removeprefix(b"\xef\xbb\xbf").lstrip()
        return read_geojson(path) if start[:1] in (b"{", b"[") else read_xml(path)
    except DefusedXmlException as error:
        raise DataError(
            f"{path}: defines a document type or entities, which annotations never need ({error}); "
            "export it again from the annotation tool"
        ) from None
    except RecursionError:
        raise DataError(f"{path}: is nested too deeply to be an annotation file") from None
    except MemoryError:
        raise DataError(f"{path}: reading it needs more memory than there is") from None
    except (ParseError, json.JSONDecodeError, UnicodeError, LookupError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not a readable annotation file ({error}); export it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
