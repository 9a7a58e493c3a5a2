"""Submissions to the challenges judged on the command line, and submissions written from studies."""

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mammopath import RESEARCH_USE_ONLY
from mammopath.cli.app import app
from mammopath.errors import ConfigError, DataError
from mammopath.export.challenges import read_camelyon16_detections
from mammopath.export.judging import paint_lesions
from mammopath.export.submissions import read_bach, read_camelyon16_slides
from mammopath.types import Finding, Record, Spacing
from slide_trees import asap, bach_wsi_tree, camelyon17_tree, slide_of
from source_trees import TREES, put

UM = 3.9
"""Of the slides: half of the pixels on which lesions are judged."""

LESION = ((40, 40), (120, 40), (120, 110), (40, 110))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def done(*arguments: object) -> str:
    told = run(*arguments)
    assert told.exit_code == 0, f"{told.output}\n{told.exception!r}"
    return told.output


def indexed(source: str, root: Path, out: Path) -> Path:
    done("index", source, root, "--out", out, "--partial")
    return out


def camelyon16(root: Path) -> Path:
    """A test slide with one outlined lesion, two without tumour, and one whose tumour nobody outlined."""
    pixels = np.random.default_rng(0).integers(0, 255, (256, 384, 3), dtype=np.uint8)
    for number in (1, 2, 3, 4):
        put(root / "images" / f"test_{number:03d}.tif", slide_of(pixels, UM))
    put(root / "images" / "tumor_007.tif", slide_of(pixels, UM))
    put(root / "annotations" / "test_001.xml", asap(("Tumor", LESION)).encode())
    rows = (
        "test_001,Tumor,IDC,Macro",
        "test_002,Normal,,None",
        "test_003,Tumor,IDC,Macro",
        "test_004,Normal,,",
    )
    put(root / "reference.csv", "\n".join(rows).encode())
    return indexed("camelyon16", root, root / "m.parquet")


def test_camelyon16_from_outlines_and_files_to_figures(tmp_path: Path) -> None:
    manifest = camelyon16(tmp_path / "c16")
    scores = put(
        tmp_path / "slides.csv",
        b"slide,probability\ntest_001.tif,0.8\nTest_002,0.6\ntest_003,0.5\ntest_004,0.4\n",
    )
    places = tmp_path / "detections"
    put(places / "test_001.csv", b"0.4,80,80\n0.3,127,70\n0.35,135,70\n")
    put(places / "test_002.csv", b"0.5,10,10\n")
    put(places / "test_003.csv", b"0.9,10,10\n")
    out = tmp_path / "told.json"
    printed = done(
        "score", "camelyon16", "--manifest", manifest, "--slides", scores, "--detections", places,
        "--draws", 20, "--out", out,
    )  # fmt: skip
    assert "test_003: not all of its tumour is outlined" in printed
    told = json.loads(out.read_text())
    assert told["slide_auc"]["value"] == 0.75
    # One lesion on three slides, found with 0.4; above it one false positive, on another slide.
    # 0.3 lies within the margin of 37.5 um around the outline (9.6 pixels), 0.35 beyond it.
    assert (told["slides"], told["lesions"], told["not_outlined"]) == (3, 1, ["test_003"])
    assert told["froc"]["sensitivity_at"] == {"1/4": 0, "1/2": 1, "1": 1, "2": 1, "4": 1, "8": 1}
    assert told["froc"]["value"] == pytest.approx(5 / 6)
    assert "not for use in diagnostic" in told["notice"].lower()


def test_lesions_are_painted_on_the_grid_of_the_organisers(tmp_path: Path) -> None:
    put(tmp_path / "a.tif", slide_of(np.full((256, 384, 3), 200, np.uint8), UM))
    points = tuple((float(x), float(y)) for x, y in LESION)
    hole = ((60.0, 60.0), (90.0, 60.0), (90.0, 90.0), (60.0, 90.0))
    findings = (
        Finding("polygon", points, malignant=1.0, holes=(hole,)),
        Finding("box", ((300.0, 10.0), (302.0, 12.0)), malignant=1.0),
        Finding("box", ((200.0, 200.0), (380.0, 250.0)), malignant=0.0),
    )
    record = Record(
        "a", tmp_path / "a.tif", "a", "a", "pathology", spacing=Spacing.square(UM), findings=findings
    )
    regions = paint_lesions(record)
    assert (regions.label.shape, regions.scale) == ((128, 192), 2.0)
    assert len(regions.ignored) == 2
    assert sorted(regions.ignored.tolist()) == [False, True]  # a box of 8 um is isolated tumour cells
    assert regions.label[37, 37] > 0  # a hole is filled, as the organisers do
    assert not regions.label[100:, 100:].any()  # what is not malignant is no lesion


@pytest.mark.data
def test_the_real_lesions_of_tumor_001_are_found_at_their_places(shared_data: Path, tmp_path: Path) -> None:
    """The slide at 1/32, its pixels told by a table, its published corners brought to the same scale."""
    told = json.loads((shared_data / "formats/camelyon16/polygons_json/Tumor_001.json").read_text())
    shapes = [[(x / 32, y / 32) for x, y in shape["vertices"]] for shape in told["positive"]]
    root = tmp_path / "c16"
    put(root / "lesion_annotations" / "tumor_001.xml", asap(*(("_0", shape) for shape in shapes)).encode())
    slide = root / "tumor" / "tumor_001.tif"
    slide.parent.mkdir()
    slide.symlink_to(shared_data / "slides/camelyon16_tumor_001_level5/tumor_001aaf.tif")
    table = put(tmp_path / "s.csv", b"slide,um\ntumor_001,7.776\n")
    manifest = tmp_path / "m.parquet"
    done("index", "camelyon16", root, "--out", manifest, "--partial", "--spacings", table)
    middles = [np.mean(shape, axis=0) for shape in shapes]
    rows = [f"{0.9 - 0.1 * i},{x},{y}" for i, (x, y) in enumerate(middles)]
    put(tmp_path / "detections" / "tumor_001.csv", "\n".join([*rows, "0.95,100,100"]).encode())
    out = tmp_path / "told.json"
    done(
        "score", "camelyon16", "--manifest", manifest, "--detections", tmp_path / "detections",
        "--split", "train", "--draws", 0, "--out", out,
    )  # fmt: skip
    found = json.loads(out.read_text())
    assert (found["slides"], found["lesions"], found["not_outlined"]) == (1, 2, [])
    assert found["froc"]["sensitivity_at"] == {"1/4": 0, "1/2": 0, "1": 1, "2": 1, "4": 1, "8": 1}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"s.csv": b"test_001,0.8\ntest_002,0.6\n"}, "2 slides have no score, the first: test_003"),
        ({"s.csv": b"test_001,1.8\n"}, r"s\.csv:1: '1.8' is no probability"),
        ({"s.csv": b"test_001,0.5\ntest_001,0.5\n"}, "stands twice"),
        ({"s.csv": b"test_001,0.5,3\n"}, "not a name and a value"),
        ({"s.csv": b""}, "has no row"),
        ({"d/test_001.csv": b"0.5,9000,10\n"}, "outside the image"),
        ({"d/test_009.csv": b"0.5,90,10\n"}, "not among the slides"),
        ({"d/test_001.csv": b"0.5,90\n"}, "is not confidence,x,y"),
        ({"d/readme.txt": b""}, "holds no detections"),
    ],
)
def test_submissions_to_camelyon16_that_do_not_fit_are_refused(
    tmp_path: Path, files: dict[str, bytes], words: str
) -> None:
    manifest = camelyon16(tmp_path / "c16")
    (name,) = files
    put(tmp_path / name, files[name])
    option = ("--slides", tmp_path / "s.csv") if name == "s.csv" else ("--detections", tmp_path / "d")
    with pytest.raises(DataError, match=words):
        raise run("score", "camelyon16", "--manifest", manifest, *option).exception  # type: ignore[misc]


def test_the_part_of_the_slides_and_something_to_judge_are_needed(tmp_path: Path) -> None:
    manifest = camelyon16(tmp_path / "c16")
    assert isinstance(run("score", "camelyon16", "--manifest", manifest).exception, ConfigError)
    scores = put(tmp_path / "s.csv", b"test_001,0.8\n")
    told = run("score", "camelyon16", "--manifest", manifest, "--slides", scores, "--split", "validation")
    assert "--split all takes every slide" in str(told.exception)


def c17(tmp_path: Path) -> tuple[Path, str]:
    root = camelyon17_tree(tmp_path / "c17")
    return indexed("camelyon17", root, tmp_path / "m.parquet"), (
        root / "training/stage_labels.csv"
    ).read_text()


def test_camelyon17_from_a_submission_to_kappa(tmp_path: Path) -> None:
    manifest, truth = c17(tmp_path)
    put(tmp_path / "s.csv", truth.encode())
    out = tmp_path / "told.json"
    done("score", "camelyon17", "--manifest", manifest, "--submission", tmp_path / "s.csv", "--out", out)
    told = json.loads(out.read_text())
    assert (told["kappa"]["value"], told["patients"], told["node_kappa"], told["nodes"]) == (1.0, 3, 1.0, 14)
    wrong = truth.replace("patient_000.zip,pN0", "patient_000.zip,pN2")
    put(tmp_path / "s.csv", wrong.encode())
    printed = done(
        "score", "camelyon17", "--manifest", manifest, "--submission", tmp_path / "s.csv", "--out", out
    )
    assert "patient_000: is submitted as pN2, but its nodes make pN0" in printed
    assert json.loads(out.read_text())["kappa"]["value"] < 0.6


def test_patients_that_a_submission_lacks_are_an_error_unless_that_is_meant(tmp_path: Path) -> None:
    manifest, truth = c17(tmp_path)
    put(tmp_path / "s.csv", "\n".join(r for r in truth.splitlines() if "patient_041" not in r).encode())
    command = ("score", "camelyon17", "--manifest", manifest, "--submission", tmp_path / "s.csv")
    assert "1 patients have no predicted stage, the first: patient_041" in str(run(*command).exception)
    assert "patient_041: has no submitted stage" in done(*command, "--partial")


def test_bach_fields_are_judged_by_accuracy(tmp_path: Path) -> None:
    manifest = indexed("bach", TREES["bach"](tmp_path / "bach"), tmp_path / "m.parquet")
    from mammopath.cohort import manifest as table_of

    records = table_of.read(manifest).records
    rows = [f"{r.path.stem},{int(r.severity)}" for r in records]
    rows[0] = f"{records[0].path.name},{(int(records[0].severity) + 1) % 4}"
    put(tmp_path / "c.csv", "\n".join(["case,class", *rows]).encode())
    out = tmp_path / "told.json"
    done("score", "bach", "--manifest", manifest, "--fields", tmp_path / "c.csv", "--out", out)
    told = json.loads(out.read_text())
    assert (told["accuracy"], told["fields"]) == (pytest.approx(1 - 1 / len(records)), len(records))
    put(tmp_path / "c.csv", "\n".join(rows[1:]).encode())
    told = run("score", "bach", "--manifest", manifest, "--fields", tmp_path / "c.csv")
    assert "1 fields have no class" in str(told.exception)


def test_bach_slides_are_judged_by_their_painted_regions(tmp_path: Path) -> None:
    """Two labelled slides of 192 x 128; masks at half of that, the second of them all wrong by one class."""
    manifest = indexed("bach_wsi", bach_wsi_tree(tmp_path / "b"), tmp_path / "m.parquet")
    island = np.zeros((64, 96), np.uint8)
    island[20:30, 20:30] = 1
    both = np.zeros((64, 96), np.uint8)
    both[10:45, 10:50] = 2
    both[island == 1] = 1
    for name, mask in (("A01", both), ("A02", island * 2)):
        put(tmp_path / "masks" / f"{name}.png", imagecodecs.png_encode(mask))
    out = tmp_path / "told.json"
    done("score", "bach", "--manifest", manifest, "--masks", tmp_path / "masks", "--out", out)
    told = json.loads(out.read_text())
    assert told["by_slide"] == {"A01": pytest.approx(1), "A02": pytest.approx(0.5)}
    assert told["slide_score"] == pytest.approx(0.75)
    for mask, words in ((both[:, :48], "not the shape"), (both + 2, "must be 0")):
        put(tmp_path / "masks" / "A01.png", imagecodecs.png_encode(np.ascontiguousarray(mask)))
        assert words in str(
            run("score", "bach", "--manifest", manifest, "--masks", tmp_path / "masks").exception
        )


def test_a_study_of_stages_becomes_a_submission_to_camelyon16(tmp_path: Path) -> None:
    nodes = [
        {"slide": "a", "score": 0.75, "detections": [[0.9, 10.6, 20.0]], "note": ""},
        {"slide": "b", "score": 0.25, "detections": [], "note": ""},
        {"slide": "c", "score": None, "detections": [], "note": "cannot be read"},
    ]
    put(tmp_path / "study" / "stages.json", json.dumps({"nodes": nodes}).encode())
    printed = done("submit", "camelyon16", tmp_path / "study", "--out", tmp_path / "out")
    assert "c: could not be read" in printed
    assert RESEARCH_USE_ONLY in printed
    assert not any("research" in path.read_text().lower() for path in (tmp_path / "out").rglob("*.csv"))
    assert read_camelyon16_slides(tmp_path / "out" / "slides.csv") == {"a": 0.75, "b": 0.25}
    found = read_camelyon16_detections(tmp_path / "out" / "detections")
    assert {name: rows.tolist() for name, rows in found.items()} == {"a": [[0.9, 10.0, 20.0]], "b": []}
    for text in (b"{}", b"[]", b"[1]", b"x", json.dumps({"nodes": [{"slide": "a", "note": ""}]}).encode()):
        put(tmp_path / "study" / "stages.json", text)
        told = run("submit", "camelyon16", tmp_path / "study", "--out", tmp_path / "out")
        assert isinstance(told.exception, DataError)


def test_predicted_slides_become_a_submission_to_camelyon16(tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    columns = "slide,confidence,x,y,x_um,y_um,length_um,area_um2,size_class"
    put(folder / "predictions.csv", b"slide,path,score\na,a.tif,0.75\nb,b.tif,0.25\nc,c.tif,\n")
    put(folder / "detections.csv", f"{columns}\na,0.9,10.6,20.0,1,1,1,1,itc\n".encode())
    assert "c: could not be read" in done("submit", "camelyon16", folder, "--out", tmp_path / "out")
    assert read_camelyon16_slides(tmp_path / "out" / "slides.csv") == {"a": 0.75, "b": 0.25}
    found = read_camelyon16_detections(tmp_path / "out" / "detections")
    assert {name: rows.tolist() for name, rows in found.items()} == {"a": [[0.9, 10.0, 20.0]], "b": []}
    (folder / "detections.csv").write_text("slide,x\na,1\n")
    told = run("submit", "camelyon16", folder, "--out", tmp_path / "out")
    assert "is no finished mammopath slides predict" in str(told.exception)
    told = run("submit", "camelyon16", tmp_path / "out", "--out", tmp_path / "other")
    assert "holds neither stages.json nor predictions.csv" in str(told.exception)


def test_predicted_fields_become_a_submission_to_bach(tmp_path: Path) -> None:
    def image(name: str, modality: str, *shares: float) -> dict[str, object]:
        told = dict(zip(("normal", "benign", "in situ", "invasive"), shares, strict=False))
        return {"image_id": name, "modality": modality, "severity": told}

    cases = [
        {"images": [image("bach/Photos/Benign/b001.tif", "pathology", 0.1, 0.6, 0.2, 0.1)]},
        {"images": [image("x/iv2.png", "pathology", 0.1, 0.2, 0.3, 0.4), image("m.dcm", "mammogram")]},
        {"images": [image("x/none.png", "pathology")]},
    ]
    put(tmp_path / "p" / "predictions.jsonl", "\n".join(map(json.dumps, cases)).encode())
    assert "x/none.png: has no severity" in done(
        "submit", "bach", tmp_path / "p", "--out", tmp_path / "c.csv"
    )
    assert read_bach(tmp_path / "c.csv") == {"b001": 1, "iv2": 3}
    put(tmp_path / "p" / "predictions.jsonl", json.dumps(cases[2]).encode())
    told = run("submit", "bach", tmp_path / "p", "--out", tmp_path / "c.csv")
    assert "no tissue image has a severity" in str(told.exception)
