# SPDX-License-Identifier: Apache-2.0
"""Build what a TD unpacks for Nuke: gizmos, both rooms, and packages for every Nuke there is.

``python tools/nuke_bundle.py`` takes the wheels of pyzmq and msgpack for every Python of Nuke on
Linux, Windows and macOS through pip, lays them over each other into ``vendor/``, and packs that
with the project's own files, the pages of its help (``help_pages.py``), a list of components and
their licences (``sbom.py``) into ``dist/gencomp-nuke-VERSION.zip``. The same sources give the same
bytes. ``vendor/`` and ``help/`` stay in the checkout, which is then an installation itself.

What lies in one folder for many interpreters must not collide: a compiled module is told apart by
its name. ``_zmq.abi3.so`` is called alike on Linux and macOS, so it gets the name of the Python
that it is for; it loads under that as well.
"""

import argparse
import configparser
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import help_pages  # noqa: E402
import sbom  # noqa: E402

VENDOR = ROOT / "vendor"
DIST = ROOT / "dist"
NAME = "gencomp"  # The one folder in the archive.
CONTENTS = "bundle.json"
WHEELS = ("pyzmq==27.3.0", "msgpack==1.1.2")  # The newest msgpack that Nuke 14 can load.
PYTHONS = ("3.9", "3.10", "3.11", "3.13")
SYSTEMS = ("linux", "windows", "macos")

# What goes into the archive of the project's own; a folder with all that is in it.
OWN = (
    "init.py",
    "menu.py",
    "gizmos",
    "icons",
    "nuke_plugin",
    "protocol",
    "docs/examples",
    "docs/artist/install-nuke.md",
    "docs/artist/troubleshooting.md",
    "docs/td/install-200.md",
    "docs/td/farm.md",
    "docs/td/errors.md",
    "tests/in_nuke",
    "tests/fakes",
    "CHANGELOG.md",
    "LICENSE",
)
BUILT = ("vendor", "help")  # Made here, from wheels and from docs/.
# What the tests of Nuke's side need besides.
TESTING = ("tests", "tools", "docs", "server", "setup.cfg", "README.md")
_ABI3 = re.compile(r"(?P<stem>.+?)(?:\.abi3\.so|(?<!win_amd64)\.pyd)\Z")
_LEFT_OUT = re.compile(r"\.(pxd|pxi|pyi|h|c)\Z|/tests/|\.dist-info/(RECORD|WHEEL)\Z")
_SINCE_1980 = (1980, 1, 1, 0, 0, 0)  # Zip knows no earlier time; a build has none of its own.


@dataclass(frozen=True)
class Target:
    """One Python on one system.

    Attributes:
        python: Its version: ``3.9``.
        system: One of ``SYSTEMS``.
    """

    python: str
    system: str

    @property
    def platforms(self) -> tuple[str, ...]:
        """Return the wheel tags that its Nuke can load, the best first."""
        if self.system == "windows":
            return ("win_amd64",)
        old = self.python == "3.9"  # Nuke 14: glibc 2.17, and on a Mac for Intel alone.
        if self.system == "macos":
            own = ("macosx_10_9_x86_64",) if old else ("macosx_11_0_arm64",)
            return (*own, "macosx_10_15_universal2")
        linux = ("manylinux2014_x86_64", "manylinux_2_17_x86_64")
        return linux if old else (*linux, "manylinux_2_26_x86_64", "manylinux_2_28_x86_64")

    @property
    def suffix(self) -> str:
        """Return how the name of a module compiled for this Python alone ends."""
        digits = self.python.replace(".", "")
        return {
            "linux": f".cpython-{digits}-x86_64-linux-gnu.so",
            "windows": f".cp{digits}-win_amd64.pyd",
            "macos": f".cpython-{digits}-darwin.so",
        }[self.system]


TARGETS = tuple(Target(python, system) for system in SYSTEMS for python in PYTHONS)


class Collision(Exception):
    """Two wheels have different content for one file."""


def download(target: Target, folder: Path) -> list[Path]:
    """Let pip take a target's wheels; return them. What lies in ``folder`` is not taken again.

    Raises:
        subprocess.CalledProcessError: pip finds none; it has said which.
    """
    place = folder / f"{target.system}-{target.python}"
    found = sorted(place.glob("*.whl"))
    if len(found) != len(WHEELS):
        shutil.rmtree(place, ignore_errors=True)
        tags = [word for tag in target.platforms for word in ("--platform", tag)]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-qq"]
        only = ["--no-deps", "--only-binary=:all:", "--implementation", "cp"]
        version = ["--python-version", target.python, "-d", str(place)]
        subprocess.run([*pip, *only, *version, *tags, *WHEELS], check=True)
        found = sorted(place.glob("*.whl"))
    return found


def unpack(wheel: Path, target: Target, into: dict[str, bytes]) -> None:
    """Lay the files of a wheel over those that are there, in place.

    Raises:
        Collision: A file is there with other content.
    """
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith("/") or _LEFT_OUT.search(name):
                continue
            body = archive.read(name)
            if b"\0" not in body:  # Text; wheels of Windows differ in how its lines end.
                body = body.replace(b"\r\n", b"\n")
            name = _own_name(name, target)
            if into.setdefault(name, body) != body:
                raise Collision(f"{wheel.name} has another {name} than the wheels before it.")


def _own_name(name: str, target: Target) -> str:
    """Return a file's name, that of its one Python where it is compiled for several."""
    loose = _ABI3.match(name)
    return name if loose is None else loose["stem"] + target.suffix


def build_vendor(wheels: Path, vendor: Path = VENDOR) -> dict[str, Any]:
    """Fill the vendor folder anew; return what is in it.

    Args:
        wheels: Folder that pip's wheels are kept in.
        vendor: The folder to fill; must be none of anybody else's.

    Raises:
        Collision: The wheels cannot lie in one folder.
    """
    files: dict[str, bytes] = {}
    told, said = [], []
    for target in TARGETS:
        for wheel in download(target, wheels):
            unpack(wheel, target, files)
            said.append(sbom.read_wheel(wheel))
            told.append(
                {
                    "python": target.python,
                    "system": target.system,
                    "wheel": wheel.name,
                    "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
                }
            )
    missing = [t.suffix for t in TARGETS if not any(name.endswith(t.suffix) for name in files)]
    if missing:
        raise Collision(f"Nothing was compiled for {', '.join(missing)}.")
    files |= sbom.licence_files(said)
    files[sbom.SBOM] = sbom.spell(sbom.cyclonedx("gencomp-nuke", version(), said))
    shutil.rmtree(vendor, ignore_errors=True)
    for name, body in files.items():
        place = vendor / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)
    made: dict[str, Any] = {"packages": list(WHEELS), "wheels": told}
    (vendor / CONTENTS).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return made


def own_files() -> Iterator[Path]:
    """Yield every file of the archive but its list of contents, in a fixed order."""
    for entry in (*OWN, *BUILT):
        place = ROOT / entry
        found = [place] if place.is_file() else sorted(place.rglob("*"))
        for path in found:
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                yield path


def pack(archive: Path, vendored: dict[str, Any]) -> dict[str, Any]:
    """Write the archive; return its list of contents, which lies in it too."""
    listed = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in own_files()}
    contents: dict[str, Any] = {
        "name": NAME,
        "version": version(),
        **vendored,
        "files": {
            name: {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            for name, body in listed.items()
        },
    }
    listed[CONTENTS] = (json.dumps(contents, indent=1) + "\n").encode()
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as made:
        for name, body in listed.items():
            made.writestr(_entry(f"{NAME}/{name}"), body, compresslevel=9)
    part.replace(archive)
    return contents


def _entry(name: str) -> zipfile.ZipInfo:
    """Return an archive entry that depends on its name alone."""
    entry = zipfile.ZipInfo(name, date_time=_SINCE_1980)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    entry.create_system = 3  # Unix, wherever it is built.
    return entry


def version() -> str:
    """Return the version of the distribution."""
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg", encoding="utf-8")
    return found["metadata"]["version"]


def sizes(contents: dict[str, Any]) -> str:
    """Return a line for each folder of the archive with its files and bytes."""
    heads: dict[str, list[int]] = {}
    for name, entry in contents["files"].items():
        heads.setdefault(name.split("/")[0], []).append(entry["bytes"])
    rows = [f"{sum(many) / 1e6:8.2f} MB {len(many):5d} {head}" for head, many in heads.items()]
    return "\n".join(rows)


def try_out(archive: Path, folder: Path, words: list[str]) -> int:
    """Unpack the archive, lay the tests beside it, and run those of Nuke's side from there.

    Args:
        archive: What was packed.
        folder: Where to unpack it; made anew.
        words: For pytest.

    Returns:
        0 where they pass under every Python that is found.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    place = folder / NAME
    for entry in TESTING:
        source = ROOT / entry
        if source.is_dir():
            left_out = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, place / entry, ignore=left_out, dirs_exist_ok=True)
        else:
            shutil.copy2(source, place / entry)
    runner = [sys.executable, str(place / "tools" / "nuke_pythons.py")]
    return subprocess.run([*runner, *words], check=False).returncode


def main(arguments: list[str]) -> int:
    """Build the bundle and say where it is and what it weighs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, default=ROOT / "build" / "nuke-wheels")
    parser.add_argument("--out", type=Path, default=DIST / f"gencomp-nuke-{version()}.zip")
    parser.add_argument(
        "--try",
        action="store_true",
        dest="tried",
        help="unpack it and run the Nuke-side tests from there; further words go to pytest",
    )
    args, rest = parser.parse_known_args(arguments)
    if rest and not args.tried:
        parser.error(f"{rest[0]} is for the tests: say --try, too")
    vendored = build_vendor(args.wheels)
    help_pages.build(ROOT / "build" / "help-packages")
    contents = pack(args.out, vendored)
    print(sizes(contents))
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, one folder '{NAME}'.")
    return try_out(args.out, DIST / "tried", rest) if args.tried else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
