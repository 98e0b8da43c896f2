"""Write the version of src/tunegate/__init__.py, or the one given, wherever it has to stand as text.

python hack/set_version.py [VERSION] [--check]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = "src/tunegate/__init__.py"
# Each place, and what stands before the version there.
PLACES = {
    SOURCE: r'^__version__ = "',
    "operators/promotion/src/tunegate_operator/__init__.py": r'^__version__ = "',
    "charts/tunegate/Chart.yaml": r"^(?:version|appVersion): ",
    "images/images.txt": r"^tunegate/[a-z-]+:",
    "images/README.md": r"tunegate/\$image:|--build-arg VERSION=",
    "benchmarks/promotion_operator.py": r"tunegate/trainer:",
    **{
        f"pipelines/{name}.yaml": r"image: tunegate/trainer:"
        for name in (
            *("05-base-model", "10-train", "11-train-full", "12-train-elastic", "13-train-trainjob"),
            *("30-evaluate-by-hand", "41-knowledge", "50-feedback-retention", "51-experience", "52-corpus"),
            *("60-review", "70-learn"),
        )
    },
}
VERSION = r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.]+)?"


def main(*words: str) -> int:
    """Returns the number of files that differ, for --check; otherwise writes them and returns 0."""
    given = [word for word in words if word != "--check"]
    (version,) = given or re.findall(rf'__version__ = "({VERSION})"', (ROOT / SOURCE).read_text())
    if not re.fullmatch(VERSION, version):
        print(f"{version} is no version; write it as 1.2.3", file=sys.stderr)
        return 2
    differing = 0
    for place, before in PLACES.items():
        path = ROOT / place
        text = path.read_text()
        new, found = re.subn(rf"({before}){VERSION}", rf"\g<1>{version}", text, flags=re.MULTILINE)
        if not found:
            print(f"{place} has no version where one is expected; mend PLACES in hack/set_version.py", file=sys.stderr)
            return 2
        if new != text:
            differing += 1
            if "--check" in words:
                print(f"{place} has another version than {SOURCE}; run: make version", file=sys.stderr)
            else:
                path.write_text(new)
    return differing if "--check" in words else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
