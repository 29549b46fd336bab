"""Write the words of `%%sweep` where the JupyterLab extension reads them, for highlighting and completion."""

import json
from pathlib import Path
from typing import Any

from mce_notebook.declare.options import ORDERS, RERUNS
from mce_notebook.frontends.line import FLAGS, METAVARS, OWN, VALUES, VERBS

FILE = Path(__file__).resolve().parents[1] / "labextension" / "src" / "words.json"


def words() -> dict[str, Any]:
    """Return options, verbs and the values of options that have a fixed list of them."""
    valued = {**VALUES, **OWN}
    return {
        "options": [
            *({"name": name, "value": METAVARS.get(name, name.upper()), "meaning": valued[name]} for name in valued),
            *({"name": name, "value": "", "meaning": meaning} for name, meaning in FLAGS.items()),
        ],
        "verbs": [{"name": name, "meaning": meaning} for name, meaning in VERBS.items()],
        "choices": {"order": list(ORDERS), "rerun": list(RERUNS)},
    }


def main() -> int:
    """Write the file."""
    FILE.write_text(json.dumps(words(), indent=2) + "\n")
    print(FILE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
