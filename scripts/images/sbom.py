"""Writes the bill of materials of images, as CycloneDX 1.6: Debian's packages and Python's.

    scripts/images/sbom.py FOLDER IMAGE…      writes FOLDER/<name>.cdx.json for each

What is listed is what lies in the image, whoever put it there: dpkg's database, and the metadata of every
distribution on the image's import path. Reads the image through podman, as root; runs nothing of it. The same
image gives the same file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import datetime
from email.parser import Parser
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

_PYTHON_FOLDERS = ("opt/callboard/lib", "opt/callboard/venv/lib/python3*/site-packages")
# Where an image keeps a Python that is no package of Debian's, and what came with it.
_OWN_PYTHON_FOLDERS = ("usr/local/lib/python3*/site-packages",)
_STATUS_FILES = ("var/lib/dpkg/status", "var/lib/dpkg/status.d/*")


def debian_packages(root: Path) -> Iterator[Component]:
    """What dpkg has installed, and what was copied with its entry beside it."""
    release = dict(line.split("=", 1) for line in (root / "etc/os-release").read_text().splitlines() if line)
    codename = release.get("VERSION_CODENAME", "").strip('"')
    seen = set()
    for path in (path for pattern in _STATUS_FILES for path in sorted(root.glob(pattern))):
        for paragraph in path.read_text().split("\n\n"):
            entry = Parser().parsestr(paragraph)
            name, version = entry["Package"], entry["Version"]
            if "installed" not in str(entry["Status"]).split() or (name, version) in seen:
                continue
            seen.add((name, version))
            url = PackageURL(
                "deb", "debian", name, version, {"arch": entry["Architecture"], "distro": codename}
            )
            yield Component(name=name, version=version, purl=url, bom_ref=str(url))


def python_packages(root: Path) -> Iterator[Component]:
    """Every distribution that the image's Python can import."""
    folders = [str(path) for pattern in _PYTHON_FOLDERS for path in sorted(root.glob(pattern))]
    if len(folders) < len(_PYTHON_FOLDERS):
        raise SystemExit(f"sbom: not an image of Callboard: {_PYTHON_FOLDERS} are not all there")
    folders += [str(path) for pattern in _OWN_PYTHON_FOLDERS for path in sorted(root.glob(pattern))]
    for found in distributions(path=folders):
        name = found.metadata["Name"].lower().replace("_", "-").replace(".", "-")
        url = PackageURL("pypi", None, name, found.version)
        yield Component(
            name=name,
            version=found.version,
            description=found.metadata["Summary"],
            licenses=list(_licences(found)),
            purl=url,
            bom_ref=str(url),
        )


def own_python(told: dict[str, Any]) -> Iterator[Component]:
    """The interpreter, where the image was built with one that dpkg does not know; it says so itself."""
    for setting in told["Config"].get("Env") or ():
        key, _, version = setting.partition("=")
        if key == "PYTHON_VERSION":
            url = PackageURL("generic", None, "python", version)
            yield Component(name="python", version=version, purl=url, bom_ref=str(url))


def _licences(found: Distribution) -> Iterator[License]:
    """An SPDX expression where there is one; else the field of old, if it is a name and not a whole text."""
    told = found.metadata["License-Expression"] or found.metadata["License"] or ""
    if told and "\n" not in told:
        yield LicenseFactory().make_from_string(told)
        return
    for classifier in found.metadata.get_all("Classifier") or ():
        family, _, name = classifier.rpartition(" :: ")
        if family.startswith("License") and name != "OSI Approved":
            yield LicenseFactory().make_with_name(name)


def bill(image: str) -> tuple[str, str]:
    """The image's plain name, and its bill as JSON that the schema allows."""
    told = json.loads(_podman("image", "inspect", image))[0]
    labels = told["Labels"] or {}
    name = labels.get("org.opencontainers.image.title") or image.rpartition("/")[2].partition(":")[0]
    root = Path(_podman("image", "mount", image).strip())
    try:
        contents = sorted({*debian_packages(root), *python_packages(root), *own_python(told)})
    finally:
        _podman("image", "unmount", image)

    bom = Bom(components=contents, serial_number=uuid.uuid5(uuid.NAMESPACE_OID, told["Id"]))
    bom.metadata.timestamp = datetime.fromisoformat(
        labels.get("org.opencontainers.image.created", "1970-01-01T00:00:00+00:00")
    )
    bom.metadata.component = Component(
        name=name,
        version=labels.get("org.opencontainers.image.version"),
        type=ComponentType.CONTAINER,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=told["Id"].removeprefix("sha256:"))],
        properties=[
            Property(name="architecture", value=told["Architecture"]),
            Property(name="base", value=labels.get("org.opencontainers.image.base.name", "")),
            Property(name="revision", value=labels.get("org.opencontainers.image.revision", "")),
        ],
    )
    bom.register_dependency(bom.metadata.component, contents)
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"sbom: {image}: not what CycloneDX 1.6 allows: {error}")
    return name, text


def _podman(*words: str) -> str:
    return subprocess.run(["podman", *words], stdout=subprocess.PIPE, text=True, check=True).stdout


def main(words: list[str]) -> int:
    if len(words) < 2:
        sys.stderr.write(f"usage: {Path(__file__).name} FOLDER IMAGE…\n")
        return 2
    folder = Path(words[0])
    folder.mkdir(parents=True, exist_ok=True)
    for image in words[1:]:
        name, text = bill(image)
        path = folder / f"{name}.cdx.json"
        path.write_text(text, encoding="utf-8")
        print(f"{path}: {len(json.loads(text)['components'])} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
