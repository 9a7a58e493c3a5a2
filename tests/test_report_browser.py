"""The report in a real browser: nothing is wider than the window, at two widths, and it prints."""

import json
import re
import shutil
import subprocess

import pytest

from mammopath.report.page import write_report
from mammopath.report.pdf import BROWSERS, print_pdf
from study_folder import make_study

BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no browser on the path"),
]

MEASURE = """
<script>
addEventListener("load", () => {
  const width = document.documentElement.clientWidth;
  const scrolls = (e) => e.closest(".scroll, pre, nav, svg, .skip");
  const wide = [...document.querySelectorAll("body *")].filter(
    (e) => e.getBoundingClientRect().right > width + 1 && !scrolls(e));
  const cut = [...document.querySelectorAll(".scroll")].filter((e) => e.scrollWidth > e.clientWidth + 1);
  const told = { width, page: document.documentElement.scrollWidth,
    wide: wide.map((e) => e.tagName + "." + e.className).slice(0, 5),
    cut: cut.map((e) => e.getAttribute("aria-label")) };
  document.title = "MEASURED " + JSON.stringify(told);
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser") / "made"
    return write_report(make_study(folder, methods=("logreg", "erm", "mixstyle"), draws=100))


def _measured(page, folder, width, media="screen"):
    shown = folder / "measured.html"
    text = page.read_text().replace("</body>", MEASURE + "</body>")
    if media == "print":  # what a sheet of A4 between its margins shows
        text = text.replace("@media print", "@media all").replace(
            "@media (max-width", "@media print and (max-width"
        )
    shown.write_text(text)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    command += [f"--window-size={width},2000", "--virtual-time-budget=4000", "--dump-dom", shown.as_uri()]
    dom = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120).stdout
    return re.search(r"<title>MEASURED (.*?)</title>", dom).group(1).replace("&quot;", '"')


@pytest.mark.parametrize(("width", "media"), [(1280, "screen"), (800, "screen"), (688, "print")])
def test_nothing_is_wider_than_the_window_or_the_sheet(page, tmp_path, width, media):

    told = json.loads(_measured(page, tmp_path, width, media))
    assert told["width"] <= width
    assert told["page"] <= told["width"]
    assert told["wide"] == []
    assert told["cut"] == [], "a table that has to be scrolled sideways at a usual width"


def test_it_prints(page):
    pdf = print_pdf(page)
    assert pdf.read_bytes().startswith(b"%PDF")
    assert 50_000 < pdf.stat().st_size < 10_000_000
