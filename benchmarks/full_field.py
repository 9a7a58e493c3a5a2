"""A full-field DICOM mammogram to a prepared tensor, against pydicom, its windows and scikit-image.

    python benchmarks/full_field.py [FILE.dcm]

Writes a film of 4688 x 2592 pixels and 16 bits (FILE, if one is given, else a painted breast) as RLE and as
JPEG Lossless. The plain way crops nothing but the bright part and gets the same size. Each way runs in a
process of its own, which also tells the peak memory; then one and two spawned workers go through the same
files, in turns. Processor seconds are the figure to trust on a busy machine. Needs scikit-image, and for the
plain way with JPEG Lossless a decoder that pydicom finds (pylibjpeg-libjpeg). Prints JSON.
"""

import json
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_voi_lut
from pydicom.uid import UID
from skimage.transform import resize

from mammopath.prepare.sample import load_sample
from mammopath.settings import PrepareSettings
from mammopath.types import Record

SIZE, ROUNDS, FILES, WORKER_ROUNDS = (4688, 2592), 5, 12, 5
TARGET = (448, 224)
RLE, LOSSLESS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70"


def painted() -> np.ndarray:
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    inside = (x / 2000) ** 2 + ((y - 2300) / 2000) ** 2 < 1
    noise = np.random.default_rng(0).integers(0, 2000, SIZE)
    return np.where(inside, 20000 + 8 * (x % 500) + noise, 300).astype(np.uint16)


def write(path: Path, pixels: np.ndarray, syntax: str) -> Path:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    data.SOPClassUID, data.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.1.2"), UID("1.2.3")
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
        data.SOPClassUID,
        UID("1.2.3"),
    )
    data.Modality, data.PhotometricInterpretation, data.SamplesPerPixel = "MG", "MONOCHROME2", 1
    data.PresentationIntentType, data.WindowCenter, data.WindowWidth = "FOR PRESENTATION", "30000", "50000"
    data.ImageLaterality, data.ImagerPixelSpacing = "L", ["0.05", "0.05"]
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = pixels.astype("<u2").tobytes()
    data["PixelData"].VR = "OW"
    if syntax == RLE:
        data.compress(UID(RLE))
    else:
        data.file_meta.TransferSyntaxUID = UID(syntax)
        data.PixelData = encapsulate([imagecodecs.ljpeg_encode(pixels)])
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.save_as(path, enforce_file_format=True)
    return path


def ours(path: Path) -> float:
    record = Record(path.name, path, "p", "s", "mammogram", laterality="L")
    return float(load_sample(record, PrepareSettings(), multiple=14).sample.image.mean())


def plain(path: Path) -> float:
    data = pydicom.dcmread(path)
    pixels = apply_voi_lut(data.pixel_array, data).astype(np.float32)
    inside = pixels > 0.1 * pixels.max()
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    pixels = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    low, high = np.quantile(pixels, (0.005, 0.998))
    image = resize(np.clip((pixels - low) / (high - low), 0, 1), TARGET, anti_aliasing=True)
    return float(torch.from_numpy(image).mean())


WAYS = {"ours": ours, "plain": plain}


def measure(way: str, path: Path) -> dict[str, float]:
    """Median processor and wall seconds of one image, and peak memory of this process above its start."""
    torch.set_num_threads(1)
    before = _memory("VmRSS")
    WAYS[way](path)
    wall, processor = [], []
    for _ in range(ROUNDS):
        start, used = time.perf_counter(), time.process_time()
        WAYS[way](path)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return {
        "processor_seconds": round(statistics.median(processor), 3),
        "wall_seconds": round(statistics.median(wall), 3),
        "peak_mb_above_start": round(_memory("VmHWM") - before),
    }


def _memory(name: str) -> float:
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def alone(way: str, path: Path) -> dict[str, float]:
    with _pool(1) as pool:
        return pool.submit(measure, way, path).result()


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,))


def workers(path: Path) -> dict[str, object]:
    """Images a second with one and two spawned workers of one thread, in turns, imports left out."""
    rounds: list[dict[int, float]] = []
    with _pool(1) as one, _pool(2) as two:
        pools = {1: one, 2: two}
        for pool in pools.values():
            list(pool.map(ours, [path] * 4))
        for _ in range(WORKER_ROUNDS):
            rounds.append({number: _rate(pool, path) for number, pool in pools.items()})
    gains = [round(rates[2] / rates[1], 2) for rates in rounds]
    return {
        "1": round(statistics.median(rates[1] for rates in rounds), 2),
        "2": round(statistics.median(rates[2] for rates in rounds), 2),
        "gain": statistics.median(gains),
        "gains": gains,
    }


def _rate(pool: ProcessPoolExecutor, path: Path) -> float:
    start = time.perf_counter()
    list(pool.map(ours, [path] * FILES))
    return FILES / (time.perf_counter() - start)


def main() -> None:
    pixels = pydicom.dcmread(sys.argv[1]).pixel_array if len(sys.argv) > 1 else painted()
    found: dict[str, object] = {
        "image": sys.argv[1] if len(sys.argv) > 1 else "painted",
        "size": pixels.shape,
    }
    with tempfile.TemporaryDirectory() as name:
        for syntax, label in ((RLE, "rle"), (LOSSLESS, "jpeg_lossless")):
            path = write(Path(name) / f"{label}.dcm", pixels, syntax)
            a, b = alone("ours", path), alone("plain", path)
            ratio = round(b["processor_seconds"] / a["processor_seconds"], 2)
            found[label] = {"ours": a, "plain": b, "ratio_processor": ratio}
        found["images_per_second_by_workers"] = workers(path)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
