"""The report as PDF, printed by a browser that is on this machine already."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from mammopath.errors import ConfigError
from mammopath.files import write_bytes

BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge"),
    "microsoft-edge",
)
"""Names under which a browser that prints without a window is looked for."""

SECONDS = 180


def print_pdf(page: Path) -> Path:
    """Print an HTML page beside itself, without network.

    Raises:
        ConfigError: no browser is found, or it did not print.
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise ConfigError(
            f"--pdf needs a browser ({', '.join(BROWSERS[:3])}, ...), and none is on the path: open {page} in"
            " any browser and print it"
        )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.pdf"
        command = [browser, "--headless", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to sandbox root
        command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--no-pdf-header-footer"]
        command += [f"--print-to-pdf={out}", page.resolve().as_uri()]
        try:
            run = subprocess.run(command, capture_output=True, check=False, text=True, timeout=SECONDS)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise ConfigError(f"{browser} did not print {page} within {SECONDS} s") from None
        if not out.exists():
            raise ConfigError(f"{browser} did not print {page}: {run.stderr.strip()[-300:]}")
        target = page.with_suffix(".pdf")
        write_bytes(target, out.read_bytes())
    return target
