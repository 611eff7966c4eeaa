"""Write kube/go.mod for one version of Kubernetes: `python pin.py v1.37.1`, then `go mod tidy -e` in kube/.

k8s.io/kubernetes builds against the staging folders of its own repository, which its module archive does not
hold. Each of them is published as a module of its own, v0.X.Y for Kubernetes 1.X.Y: one `replace` for each.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

MODULE = "k8s.io/kubernetes"


def staging_modules(version: str) -> list[str]:
    """The staging modules that this version's own go.mod names."""
    told = subprocess.run(
        ["go", "mod", "download", "-json", f"{MODULE}@{version}"], check=True, capture_output=True, text=True
    ).stdout
    upstream = Path(json.loads(told)["GoMod"]).read_text(encoding="utf-8")
    return sorted(set(re.findall(r"^\s*(k8s\.io/[\w.-]+) => \./staging/", upstream, re.MULTILINE)))


def render(version: str, modules: list[str]) -> str:
    staged = "v0." + version.removeprefix("v1.")
    lines = [
        "module callboard.invalid/cluster-tools/kube",
        "",
        "go 1.26.0",
        "",
        f"require {MODULE} {version}",
        "",
        "// Written by ../pin.py: in the archive of k8s.io/kubernetes these point to folders that it lacks.",
        "replace (",
        *[f"\t{module} => {module} {staged}" for module in modules],
        ")",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) != 2 or not re.fullmatch(r"v1\.\d+\.\d+", sys.argv[1]):
        sys.exit("usage: pin.py v1.MINOR.PATCH")
    version = sys.argv[1]
    if not (modules := staging_modules(version)):
        sys.exit(f"pin.py: the go.mod of {MODULE} {version} names no staging folder")
    (Path(__file__).parent / "kube" / "go.mod").write_text(render(version, modules), encoding="utf-8")


if __name__ == "__main__":
    main()
