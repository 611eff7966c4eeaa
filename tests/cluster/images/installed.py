"""What Python's metadata in an image says is installed, and what the lock wants there."""

from __future__ import annotations

import json

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.cluster.images.containers import IMAGES, ROOT, in_image

_DISTRIBUTIONS = """
import json
from importlib.metadata import distributions
print(json.dumps({d.metadata["Name"]: d.version for d in distributions()}))
"""
_ENVIRONMENT = """
import json, os, platform, sys
print(json.dumps({
    "os_name": os.name,
    "platform_machine": platform.machine(),
    "platform_python_implementation": platform.python_implementation(),
    "platform_system": platform.system(),
    "python_full_version": platform.python_version(),
    "python_version": ".".join(platform.python_version_tuple()[:2]),
    "sys_platform": sys.platform,
}))
"""


def installed(image: str) -> dict[str, str]:
    """Distributions that the image's Python finds, by plain name."""
    told = json.loads(in_image(image, _DISTRIBUTIONS))
    return {canonicalize_name(name): version for name, version in told.items()}


def locked(part: str) -> dict[str, str]:
    """What the lock wants on this Python, by plain name."""
    environment = json.loads(in_image(IMAGES[part], _ENVIRONMENT))
    wanted: dict[str, str] = {}
    for line in (ROOT / f"requirements/{part}.txt").read_text().splitlines():
        if not line.startswith((" ", "#")) and line.strip():
            requirement = Requirement(line.rstrip("\\ "))
            if requirement.marker is None or requirement.marker.evaluate(environment):
                wanted[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return wanted
