# SPDX-License-Identifier: Apache-2.0
"""What a bundle is made of: a CycloneDX list of its wheels, and the licence texts they carry.

Every figure is read from the wheels themselves (``METADATA``, and the files that it calls licence
files), so that the list cannot say another version than the one that is packed. CycloneDX 1.6,
https://cyclonedx.org/docs/1.6/json/.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

SBOM = "sbom.cdx.json"
LICENCES = "third-party-licences"
_TEXT = re.compile(r"(?i)(?:^|/)(?:licen[cs]e|copying|notice|authors|copyright)[^/]*\Z")
_TRUE_TEXT = re.compile(r"(?i)(?:^|/)(?:licen[cs]e|copying|copyright)[^/]*\Z")
_CODE = (".py", ".pyc", ".so", ".pyd", ".h", ".pyi")


@dataclass(frozen=True)
class Wheel:
    """What a wheel says of itself.

    Attributes:
        name: The distribution's name, as it spells it.
        version: Its version.
        licence: Its SPDX expression or its own words; empty where it says neither.
        sha256: Of the file.
        texts: Its licence files, by name inside the wheel.
    """

    name: str
    version: str
    licence: str
    sha256: str
    texts: dict[str, bytes]

    @property
    def purl(self) -> str:
        """Return the package's URL in the index of Python packages."""
        return f"pkg:pypi/{re.sub(r'[-_.]+', '-', self.name).lower()}@{self.version}"


def read_wheel(path: Path) -> Wheel:
    """Return what a wheel says of itself.

    Raises:
        ValueError: It holds no METADATA.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        found = [name for name in names if name.count("/") == 1 and name.endswith("/METADATA")]
        if not found:
            raise ValueError(f"{path.name} is no wheel: it has no METADATA.")
        said = HeaderParser().parsestr(archive.read(found[0]).decode("utf-8", "replace"))
        texts = {
            name: archive.read(name)
            for name in names
            if _TEXT.search(name) and not name.endswith(_CODE)
        }
    licence = said.get("License-Expression") or _classified(said.get_all("Classifier") or [])
    return Wheel(
        said["Name"],
        said["Version"],
        licence or _one_line(said.get("License") or ""),
        hashlib.sha256(path.read_bytes()).hexdigest(),
        texts,
    )


def _classified(classifiers: "list[str]") -> str:
    found = [c.split(" :: ")[-1] for c in classifiers if c.startswith("License :: ")]
    return ", ".join(one for one in found if one != "OSI Approved")


def _one_line(text: str) -> str:
    """Return the first line of words that may be a whole licence."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:120]


def cyclonedx(name: str, version: str, wheels: Iterable[Wheel]) -> "dict[str, Any]":
    """Return the list of components of a bundle, as CycloneDX has it.

    Wheels of one version for several systems are one component with several hashes.

    Args:
        name: Of the bundle.
        version: Of the bundle.
        wheels: What it holds.
    """
    components: dict[str, dict[str, Any]] = {}
    for one in sorted(wheels, key=lambda wheel: (wheel.purl, wheel.sha256)):
        entry = components.setdefault(
            one.purl,
            {
                "type": "library",
                "bom-ref": one.purl,
                "name": one.name,
                "version": one.version,
                "purl": one.purl,
                "hashes": [],
                "licenses": [{"license": {"name": one.licence}}] if one.licence else [],
            },
        )
        digest = {"alg": "SHA-256", "content": one.sha256}
        if digest not in entry["hashes"]:
            entry["hashes"].append(digest)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": name,
                "name": name,
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": list(components.values()),
        "dependencies": [{"ref": name, "dependsOn": sorted(components)}],
    }


def spell(bom: "dict[str, Any]") -> bytes:
    """Return a list of components as the bytes of its file."""
    return (json.dumps(bom, indent=1, ensure_ascii=False) + "\n").encode()


def licence_files(wheels: Iterable[Wheel]) -> "dict[str, bytes]":
    """Return the licence texts of wheels by their place in a bundle, the same text once."""
    found: dict[str, bytes] = {}
    for one in wheels:
        folder = f"{LICENCES}/{one.name}-{one.version}"
        seen: set[bytes] = set()
        for name, body in sorted(one.texts.items()):
            if body in seen:
                continue
            seen.add(body)
            flat = re.sub(r"[^A-Za-z0-9._-]+", "_", re.sub(r"\A[^/]+\.dist-info/", "", name))
            found[f"{folder}/{flat}"] = body
        if not any(_TRUE_TEXT.search(name) for name in one.texts):
            words = one.licence or "It names none: ask its authors before you pass it on."
            note = f"{one.name} {one.version} packs no text of its licence. It names: {words}\n"
            found[f"{folder}/NAMED.txt"] = note.encode()
    return found
