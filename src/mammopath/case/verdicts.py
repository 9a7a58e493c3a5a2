"""What the latest audit of a run says of each map method, beside the run."""

import json

from mammopath.runs import Run

FILE = "map_audit.json"


def read_verdicts(run: Run) -> dict[str, str]:
    """Verdicts by ``modality.method``; none where no audit of these very weights is there."""
    try:
        told = json.loads((run.folder / FILE).read_text())
        same = told["model_sha256"] == run.facts.get("model_sha256")
        return {str(k): str(v) for k, v in told["verdicts"].items()} if same else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
