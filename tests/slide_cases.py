"""Slides for tests: small phantom slides, and pyramids written in every compression."""

import struct
from collections.abc import Collection
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

from mammopath.phantom.shapes import Ellipse
from mammopath.phantom.sites import SITES
from mammopath.phantom.slide import Area, SlidePlan, write_slide
from mammopath.phantom.texture import LYMPH, STROMA, TUMOUR

TUMOUR_AT = (900.0, 1100.0)
"""Centre of the tumour of the small slide, in level-0 pixels."""


def small_plan(*, side: int = 2048, um: float = 1.0, site: str = "site_a", radius: int = 180) -> SlidePlan:
    """Stroma, lymph node, and one round tumour, if it has a radius."""
    middle = side / 2
    areas = [
        Area(Ellipse(middle, middle, 0.42 * side, 1.2, 0.3).outline(corners=48), STROMA),
        Area(Ellipse(middle, middle, 0.36 * side, 1.1, 0.3).outline(corners=48), LYMPH),
    ]
    if radius:
        areas.append(Area(Ellipse(*TUMOUR_AT, float(radius)).outline(corners=48), TUMOUR))
    return SlidePlan(side, um, tuple(areas), SITES[site].tissue, levels=4)


def small_slide(path: Path, *, side: int = 2048, site: str = "site_a", radius: int = 180) -> Path:
    write_slide(path, small_plan(side=side, site=site, radius=radius))
    return path


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Colours that change slowly, so that lossy codecs have something to do."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / a + b) + np.cos(y / c) for a, b, c in rng.uniform(5, 40, (3, 3))]
    return np.clip(128 + 50 * np.stack(waves, axis=-1) + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(
        np.uint8
    )


def tiled(
    path: Path, rgb: np.ndarray, kind: str, *, tile: int = 64, levels: int = 2, um: float = 0.5
) -> Path:
    """A tiled pyramid in one compression: none, lzw, deflate, jpeg444, jpeg420, jpeg-rgb or jpeg2000."""
    with tifffile.TiffWriter(path, bigtiff=kind == "lzw") as tiff:
        for level in range(levels):
            image = rgb[:: 1 << level, :: 1 << level]
            dots = 1e4 / um / 2**level
            options: dict[str, object] = {
                "tile": (tile, tile), "subfiletype": int(level > 0), "metadata": None,
                "resolution": (dots, dots), "resolutionunit": "CENTIMETER", "photometric": "rgb",
            }  # fmt: skip
            if kind.startswith("jpeg") and kind != "jpeg2000":
                ycc = kind != "jpeg-rgb"
                options |= {"compression": "jpeg", "photometric": "ycbcr" if ycc else "rgb"}
                options |= {"subsampling": (2, 2) if kind == "jpeg420" else (1, 1)} if ycc else {}
            elif kind == "lzw":
                options |= {"compression": "lzw", "predictor": True}
            elif kind == "deflate":
                options |= {"compression": "zlib"}
            elif kind == "jpeg2000":
                options |= {"compression": 33005, "description": f"Aperio Image Library\r\n|MPP = {um}"}
                image = _encoded(image, tile)  # type: ignore[assignment]
                options |= {"shape": rgb[:: 1 << level, :: 1 << level].shape, "dtype": np.uint8}
            tiff.write(image, **options)  # type: ignore[arg-type]
    return path


def _encoded(image: np.ndarray, tile: int):
    for whole in _whole_tiles(image, tile):
        yield imagecodecs.jpeg2k_encode(whole, level=50, codecformat="j2k")


def _whole_tiles(image: np.ndarray, tile: int):
    for top in range(0, image.shape[0], tile):
        for left in range(0, image.shape[1], tile):
            piece = image[top : top + tile, left : left + tile]
            spare = [(0, tile - side) for side in piece.shape[:2]]
            yield np.pad(piece, (*spare, (0, 0)), mode="edge")  # lossy codecs would let black shine through


def aperio_ycc(path: Path, ycc: np.ndarray, *, tile: int = 64, um: float = 0.5) -> Path:
    """An Aperio slide of one level whose JPEG 2000 tiles hold YCbCr (compression 33003), without loss."""
    data = (
        imagecodecs.jpeg2k_encode(t, level=0, codecformat="j2k", mct=False, reversible=True)
        for t in _whole_tiles(ycc, tile)
    )
    tifffile.imwrite(
        path, data, shape=ycc.shape, dtype=np.uint8, tile=(tile, tile), compression=33003, photometric="rgb",
        metadata=None, description=f"Aperio Image Library\r\n|MPP = {um}",
    )  # fmt: skip
    return path


def philips(
    path: Path,
    rgb: np.ndarray,
    *,
    tile: int = 64,
    levels: int = 4,
    um: float = 0.243,
    empty: Collection[tuple[int, int]] = (),
) -> Path:
    """A Philips TIFF as those of CAMELYON: pages padded to whole tiles, sizes of pixels in XML, empty tiles.

    Args:
        path: to write.
        rgb: level 0, whose sides must be whole tiles.
        tile, levels, um: of the pyramid.
        empty: level and number of tiles without bytes.
    """
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            image = rgb[:: 1 << level, :: 1 << level]
            across, down = (-(-side // tile) * tile for side in image.shape[1::-1])
            data = (
                b"" if (level, k) in empty else imagecodecs.jpeg8_encode(t, 90, subsampling="420")
                for k, t in enumerate(_whole_tiles(image, tile))
            )
            tiff.write(
                data, shape=(down, across, 3), dtype=np.uint8, tile=(tile, tile), compression="jpeg",
                photometric="ycbcr", subsampling=(2, 2), subfiletype=int(level > 0), metadata=None,
                description=None if level else _philips_xml(levels, um),
                software=None if level else "Philips DP v1.0",
            )  # fmt: skip
    return path


def _philips_xml(levels: int, um: float) -> str:
    def attribute(name: str, place: tuple[str, str], kind: str, value: str) -> str:
        group, element = place
        facts = f'Name="{name}" Group="{group}" Element="{element}" PMSVR="{kind}"'
        return f"<Attribute {facts}>{value}</Attribute>"

    def spacing(level: int) -> str:
        side = f"&quot;{um * 2**level / 1000}&quot;"
        return attribute("DICOM_PIXEL_SPACING", ("0x0028", "0x0030"), "IDoubleArray", f"{side} {side}")

    def of(kind: str, content: str) -> str:
        return f'<DataObject ObjectType="{kind}">{content}</DataObject>'

    def array(name: str, place: tuple[str, str], content: str) -> str:
        return attribute(name, place, "IDataObjectArray", f"<Array>{content}</Array>")

    number = "PIIM_PIXEL_DATA_REPRESENTATION_NUMBER"
    each = "".join(
        of("PixelDataRepresentation", spacing(k) + attribute(number, ("0x301D", "0x1001"), "IUInt16", str(k)))
        for k in range(levels)
    )
    image = attribute("PIM_DP_IMAGE_TYPE", ("0x301D", "0x1004"), "IString", "WSI") + spacing(0)
    image += array("PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", ("0x1001", "0x8B01"), each)
    scanned = array("PIM_DP_SCANNED_IMAGES", ("0x301D", "0x1003"), of("DPScannedImage", image))
    return '<?xml version="1.0" encoding="UTF-8" ?>' + of("DPUfsImport", scanned)


def dicom_slide(folder: Path, rgb: np.ndarray, *, tile: int = 64, levels: int = 3, um: float = 0.5) -> Path:
    """A tiled DICOM slide (PS3.3 A.32.8): the first of its files, one for each level, of JPEG tiles."""
    folder.mkdir(parents=True, exist_ok=True)
    series, frame_of_reference = generate_uid(), generate_uid()
    for level in range(levels):
        image = np.asarray(Image.fromarray(rgb).reduce(1 << level))
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.FrameOfReferenceUID = series, frame_of_reference
        data.ImageType = ["ORIGINAL" if level == 0 else "DERIVED", "PRIMARY", "VOLUME", "NONE"]
        data.Modality, data.DimensionOrganizationType = "SM", "TILED_FULL"
        data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = image.shape[:2]
        data.Rows = data.Columns = tile
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "YBR_FULL_422", 0
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
        data.TotalPixelMatrixFocalPlanes = data.NumberOfOpticalPaths = 1
        groups, measures = Dataset(), Dataset()
        measures.PixelSpacing = [um * 2**level / 1000] * 2
        groups.PixelMeasuresSequence = [measures]
        data.SharedFunctionalGroupsSequence = [groups]
        frames = [imagecodecs.jpeg8_encode(t, 95, subsampling="422") for t in _whole_tiles(image, tile)]
        data.NumberOfFrames = len(frames)
        data.PixelData = encapsulate(frames)
        data.save_as(folder / f"level_{level}.dcm", enforce_file_format=True)
    return folder / "level_0.dcm"


def damage(path: Path, number: int, how: str = "garbage", page: int = 0) -> None:
    """Spoil one tile of a page: other bytes in its place, or zeros in its second half."""
    with tifffile.TiffFile(path) as tiff:
        start, count = tiff.pages[page].dataoffsets[number], tiff.pages[page].databytecounts[number]
    with path.open("r+b") as file:
        if how == "garbage":
            file.seek(start)
            file.write(b"\x01" * count)
        else:
            file.seek(start + count // 2)
            file.write(b"\0" * (count - count // 2))


def huge_slide(path: Path, side: int = 100_000, *, um: float = 0.5, tile: int = 256) -> Path:
    """A pyramid of any size in a small file: all of its tiles are one of two, glass outside, tissue inside.

    A BigTIFF by hand (TIFF 6.0, sections 2 and 15): tifffile would write every tile.
    """
    glass = imagecodecs.jpeg8_encode(np.full((tile, tile, 3), 244, np.uint8), 80)
    tissue = imagecodecs.jpeg8_encode(smooth(tile, tile) // 2 + np.array([90, 30, 80], np.uint8), 80)
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        places = [(file.tell(), len(data), file.write(data))[:2] for data in (glass, tissue)]
        link, level = 8, side
        while True:
            count = -(-level // tile)
            y, x = np.mgrid[:count, :count] / count
            inside = (np.hypot(x - 0.5, y - 0.5) < 0.4).astype(int).ravel()
            arrays = [np.array([p[k] for p in places], "<u8")[inside] for k in (0, 1)]
            starts = [(file.tell(), file.write(a.tobytes()))[0] for a in arrays]
            dots = round(1e4 / um * level / side * 1000)
            tags = [
                (254, 4, 1, int(level < side)), (256, 4, 1, level), (257, 4, 1, level),
                (258, 3, 3, 8 | 8 << 16 | 8 << 32), (259, 3, 1, 7), (262, 3, 1, 6), (277, 3, 1, 3),
                (282, 5, 1, dots | 1000 << 32),
                (283, 5, 1, dots | 1000 << 32), (296, 3, 1, 3), (322, 4, 1, tile), (323, 4, 1, tile),
                (324, 16, count**2, starts[0] if count > 1 else int(arrays[0][0])),
                (325, 16, count**2, starts[1] if count > 1 else int(arrays[1][0])), (530, 3, 2, 2 | 2 << 16),
            ]  # fmt: skip
            here = file.tell()
            file.write(struct.pack("<Q", len(tags)) + b"".join(struct.pack("<HHQQ", *t) for t in tags))
            end = file.tell()
            file.write(struct.pack("<Q", 0))
            file.seek(link)
            file.write(struct.pack("<Q", here))
            file.seek(0, 2)
            link, level = end, level // 4
            if level < tile:
                return path
