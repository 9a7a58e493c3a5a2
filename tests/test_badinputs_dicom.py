"""Every odd or malformed DICOM file ends in pixels or in one error, as a kept and reviewed list says.

The list is ``badinputs_dicom.json``. ``outcomes`` is what becomes of each file, first as it is, then as if it
said that it is a mammogram, since most are of other modalities and would be refused before their lies are
met: by the reader, by the reader of facts, and by the de-identification. ``ok`` is followed by what the
reader warns of. ``accepted`` says, by parts of names, why a file with a suspicious name may be read without a
warning. To renew the outcomes after a change that is meant, run this file as a program on the folder of
files, and read the difference.
"""

import faulthandler
import json
import re
import resource
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

KEPT = Path(__file__).with_name("badinputs_dicom.json")

SECONDS, BYTES = 25, 2_500_000_000
"""What one file may take, on the wall clock, and the memory of the process."""

SUSPICIOUS = re.compile(r"TC\d+|_bad|fixed|mismatch|corrupt|invalid|BASELINE|VR-UN")
"""Names of files that were made to be wrong: the fuzzing corpus, and what says so itself."""

LIES = ("window_w", "voi_lut", "bits_", "minmax_hb", "photometric", "pixeldata", "pixel_", "mf_nf")
"""Parts of names of files that lie about windows, bits, lengths, photometrics or frames."""


def outcomes(root: Path) -> dict[str, list[str]]:
    """What becomes of each file, as it is and as a mammogram; the process ends where a limit is passed."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    warnings.simplefilter("ignore")
    from mammopath.images import deidentify, dicom, dicom_facts, dicom_file

    opened = dicom_file.open_dicom

    def as_mammogram(path: Path, *, pixels: bool):
        data = opened(path, pixels=pixels)
        data.Modality = "MG"
        return data

    found: dict[str, list[str]] = {}
    for way in (opened, as_mammogram):
        dicom.open_dicom = dicom_facts.open_dicom = deidentify.open_dicom = way
        for path in sorted(root.iterdir()):
            told = {
                "read": told_of(path, lambda path: dicom.read_dicom(path).header.warnings),
                "facts": told_of(path, lambda path: dicom_facts.read_facts(path).warnings),
                "deidentified": told_of(
                    path, lambda path: bool(deidentify.deidentified(path, key=b"k" * 16)) * ()
                ),
            }
            found.setdefault(path.name, []).append(" ".join(f"{name}={how}" for name, how in told.items()))
    return found


def told_of(path: Path, read: Callable[[Path], tuple[str, ...]]) -> str:
    """``ok`` with the warnings, or the reason code; the process ends with a message if it takes too long."""
    from mammopath.errors import ImageReadError

    sys.stderr.write(f"{path}\n")
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        return "+".join(["ok", *read(path)])
    except ImageReadError as error:
        return error.code
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.mark.data
@pytest.mark.slow
def test_every_file_does_as_the_list_says(shared_data, tmp_path):
    with tarfile.open(shared_data / "badinputs.tar.xz") as archive:
        members = [m for m in archive if m.name.startswith("badinputs/dicom/")]
        archive.extractall(tmp_path, members, filter="data")
    command = [sys.executable, __file__, str(tmp_path / "badinputs" / "dicom")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    found, kept = json.loads(done.stdout)["outcomes"], json.loads(KEPT.read_text())["outcomes"]
    assert {n: (found.get(n), kept.get(n)) for n in found | kept if found.get(n) != kept.get(n)} == {}


def silent() -> set[str]:
    """Names of files that are read as mammograms without a warning."""
    kept = json.loads(KEPT.read_text())["outcomes"]
    return {name for name, (_, way) in kept.items() if way.startswith("read=ok ")}


def reasons(name: str) -> list[str]:
    """Why a file with a suspicious name may be read."""
    return [why for part, why in json.loads(KEPT.read_text())["accepted"].items() if re.search(part, name)]


def test_what_is_accepted_under_a_suspicious_name_has_one_reason():
    names = {name for name in silent() if SUSPICIOUS.search(name)}
    assert len(names) > 200
    assert {name: reasons(name) for name in names if len(reasons(name)) != 1} == {}


def test_every_reason_is_needed():
    names = silent()
    accepted = json.loads(KEPT.read_text())["accepted"]
    assert [part for part in accepted if not any(re.search(part, name) for name in names)] == []


def test_no_lie_about_windows_bits_lengths_or_photometrics_is_accepted_silently():
    kept = json.loads(KEPT.read_text())["outcomes"]
    lies = {name for name in kept if any(part in name for part in LIES)}
    harmless = {"TC0749_window_wc_ww_10_values", "TC0281_seq_with_pixeldata"}
    assert len(lies) >= 20
    assert {name.split("__")[-1].removesuffix(".dcm") for name in lies & silent()} <= harmless


if __name__ == "__main__":
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    found = {"accepted": kept.get("accepted", {}), "outcomes": outcomes(Path(sys.argv[1]))}
    sys.stdout.write(json.dumps(found, indent=0))
