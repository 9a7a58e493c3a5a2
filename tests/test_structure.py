"""The structure of the package: the map, the import directions, the budgets, free imports."""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "mammopath"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [f for f in FILES if f.name != "__init__.py"]

SETTINGS = {"settings", "slide_settings", "config"}
GROUND = SETTINGS | {"types", "errors", "files", "tensors", "progress", "parallel"}
DATA = {"images", "phantom", "sources", "prepare", "cohort"}
MODEL = {"objectives", "model", "runs"}
BESIDE = {"metrics", "adaptation", "export", "verdict"}
JOINTS = [
    "features",
    "filling",
    "train",
    "predict",
    "contact",
    "maps",
    "slides",
    "explain",
    "baselines",
    "scratch",
    "evaluate",
    "paired",
    "confidence",
    "familiarity",
    "representation",
    "localisation",
    "seen",
    "diagnostics",
    "bench",
    "starting",
    "trials",
    "case",
    "audit",
    "experiment",
    "site_stream",
    "adapting",
    "acceptance",
    "card",
    "lodo",
    "gallery",
    "demo",
]
"""Where data meets the model; each may import the ones before it."""

ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "errors": set(),
    "files": {"errors"},
    "settings": {"types"},
    "slide_settings": {"settings"},
    "config": {"types", "errors", "settings", "slide_settings"},
    "progress": set(),
    "parallel": set(),
    "keys": {"config", "settings"},
    "tensors": {"types"},
    "images": GROUND - {"tensors"},
    "phantom": GROUND - {"tensors"} | {"images"},
    "sources": GROUND - {"tensors"} | {"images", "phantom"},
    "prepare": GROUND | {"images"},
    "cohort": GROUND | {"images", "prepare", "sources"},
    "metrics": {"errors", "types"},
    "export": GROUND - {"tensors"} | {"images", "metrics"},
    "objectives": GROUND - {"files"},
    "model": GROUND | {"objectives"},
    "runs": GROUND | {"objectives", "model"},
    "adaptation": GROUND | {"model", "objectives", "prepare"},
    "report": {"errors", "files", "metrics", "evaluate"},
    "verdict": {"metrics"},
    "doctor": {"model"},
}
for number, joint in enumerate(JOINTS):
    ALLOWED[joint] = GROUND | DATA | MODEL | BESIDE | set(JOINTS[:number])
"""Room or module -> what it may import; ``cli`` may import all, and nothing imports ``cli``."""


def room(path: Path) -> str:
    """First part of a module's place under the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def own_imports(path: Path) -> Iterator[str]:
    """Rooms of the package that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [node.module] if node.module != "mammopath" else [f"mammopath.{a.name}" for a in node.names]
            )
        yield from (n.split(".")[1] for n in names if n.startswith("mammopath.") and n.count("."))


@pytest.mark.parametrize(
    "path",
    [f for f in FILES if room(f) not in ("cli", "__init__")],
    ids=lambda f: str(f.relative_to(PACKAGE)),
)
def test_imports_go_one_way(path: Path) -> None:
    here = room(path)
    wrong = set(own_imports(path)) - ALLOWED[here] - {here, "RESEARCH_USE_ONLY", "__version__"}
    assert not wrong, f"{here} must not import {sorted(wrong)}"


def test_adaptation_takes_only_augmentation_from_prepare() -> None:
    for path in PACKAGE.glob("adaptation/*.py"):
        for module in re.findall(r"from mammopath\.prepare(\.\w+)?", path.read_text()):
            assert module in (".augment", ".stain"), f"{path.name} imports prepare{module}"


def test_the_map_in_the_readme_is_the_disk() -> None:
    told = set(re.findall(r"^\s+(\w+\.py)\s+#", (ROOT / "README.md").read_text(), re.M))
    found = {f.name for f in MODULES}
    assert told == found, f"only in README: {sorted(told - found)}; only on disk: {sorted(found - told)}"


def test_folders_are_one_level_deep() -> None:
    assert all(len(f.relative_to(PACKAGE).parts) <= 2 for f in FILES)


def test_files_stay_small() -> None:
    lengths = {str(f.relative_to(PACKAGE)): len(f.read_text().splitlines()) for f in MODULES}
    assert {k: v for k, v in lengths.items() if v > 400} == {}
    assert statistics.median(lengths.values()) <= 150


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function of the package with its place."""
    for f in FILES:
        for node in ast.walk(ast.parse(f.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{f.relative_to(PACKAGE)}:{node.name}", node


def code_lines(node: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


def test_functions_stay_small() -> None:
    lengths = sorted(code_lines(node) for _, node in functions())
    assert lengths[int(0.9 * len(lengths))] <= 25


def test_no_function_hides_its_arguments() -> None:
    assert [name for name, node in functions() if node.args.kwarg] == []


def test_one_level_of_own_classes() -> None:
    bases = {}
    for f in FILES:
        for node in ast.walk(ast.parse(f.read_text())):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [b.id for b in node.bases if isinstance(b, ast.Name)]
    depth = {n: [b for b in bs if b in bases] for n, bs in bases.items()}
    # Errors and settings are trees of names without behaviour; everything else stays flat.
    named_trees = ("Error", "Settings")
    deep = [n for n, bs in depth.items() if any(depth[b] for b in bs) and not n.endswith(named_trees)]
    assert deep == []


def run_python(code: str) -> str:
    """Output of a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_or_the_command_line_loads_no_torch() -> None:
    heavy = "('torch', 'polars', 'sklearn', 'scipy')"
    code = f"import sys, mammopath, mammopath.cli.app; print([m for m in {heavy} if m in sys.modules])"
    assert run_python(code).strip() == "[]"


def test_torchvision_and_timm_are_never_imported() -> None:
    for f in FILES:
        assert not re.search(r"^\s*(import|from) (torchvision|timm|lightning)", f.read_text(), re.M), f


def test_no_pickle_is_read() -> None:
    for f in FILES:
        assert not re.search(r"torch\.load\(|\bpickle\b\.load|allow_pickle=True", f.read_text()), f


def test_nothing_is_seeded_by_a_hash_that_changes_between_processes() -> None:
    """``hash()`` of a string is salted anew in every process."""
    called = [
        str(f.relative_to(PACKAGE))
        for f in FILES
        for node in ast.walk(ast.parse(f.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hash"
    ]
    assert called == []
