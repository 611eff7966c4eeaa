"""The images' bills of materials name what is in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from packageurl import PackageURL

from tests.cluster.images.containers import IMAGES, ROOT, in_image, inspect

BILLS = ROOT / "build/images"


def bill(part: str) -> dict[str, Any]:
    path = BILLS / f"callboard-{part}.cdx.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not written: make images")
    return json.loads(path.read_text())


@pytest.mark.parametrize("part", sorted(IMAGES))
def test_a_bill_is_of_the_image_that_is_here(part: str) -> None:
    component = bill(part)["metadata"]["component"]
    assert component["name"] == f"callboard-{part}"
    assert component["hashes"][0]["content"] == inspect(IMAGES[part])["Id"].removeprefix("sha256:")


@pytest.mark.parametrize("part", sorted(IMAGES))
def test_a_bill_lists_what_python_and_dpkg_find(part: str) -> None:
    urls = [PackageURL.from_string(component["purl"]) for component in bill(part)["components"]]
    python = in_image(
        IMAGES[part],
        "from importlib.metadata import distributions\n"
        "print(*{found.metadata['Name'].lower() for found in distributions()})",
    ).split()
    debian = in_image(
        IMAGES[part],
        "import os; os.execvp('dpkg-query', ['dpkg-query', '-f', '${Package} ', '-W'])",
    ).split()
    listed = {url.name for url in urls if url.type == "pypi"}
    assert listed == {name.replace("_", "-").replace(".", "-") for name in python}
    packages = {url.name for url in urls if url.type == "deb"}
    assert packages == set(debian) | {"tini"}


@pytest.mark.parametrize("part", sorted(IMAGES))
def test_a_bill_knows_the_licence_of_every_python_package(part: str) -> None:
    unknown = [
        component["name"]
        for component in bill(part)["components"]
        if component["purl"].startswith("pkg:pypi/") and not component.get("licenses")
    ]
    assert unknown == []
