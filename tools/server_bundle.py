# SPDX-License-Identifier: Apache-2.0
"""Build what installs the server without a network: wheels with their hashes, and an installer.

``python tools/server_bundle.py`` makes a wheel of the project, takes the wheels of everything the
server needs in the tested versions (``constraints.txt``) for this Python on this system, and packs
them with ``install.sh``, the list of components and the licence texts into
``dist/gencomp-server-VERSION-SYSTEM-PYTHON.tar``. A bundle is for the platform that built it.
"""

import argparse
import hashlib
import io
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import sbom  # noqa: E402
from nuke_bundle import version  # noqa: E402

DIST = ROOT / "dist"
NAME = "gencomp-server"
PACKAGING = ("install.sh", "gencomp.service", "Containerfile")


def tag() -> str:
    """Return what a bundle built here is for: ``linux-x86_64-py3.11``."""
    major, minor = sys.version_info[:2]
    return f"{platform.system().lower()}-{platform.machine()}-py{major}.{minor}"


def collect(folder: Path, torch_index: str = "") -> "list[Path]":
    """Fill a folder with the project's wheel and those of all it needs; return them.

    Args:
        folder: For the wheels; what lies there is kept and used again.
        torch_index: Package index to take torch from; empty takes it from where the rest is from.

    Raises:
        subprocess.CalledProcessError: pip finds no wheel; it has said which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("gencomp-*.whl"):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ROOT / "build" / "lib"
    shutil.rmtree(build, ignore_errors=True)  # Else a module that is gone would be packed.
    subprocess.run([*pip, "wheel", "-qq", "--no-deps", "-w", str(folder), str(ROOT)], check=True)
    own = next(folder.glob("gencomp-*.whl"))
    get = [*pip, "download", "-qq", "--only-binary=:all:", "-d", str(folder)]
    constrained = ["-c", str(ROOT / "constraints.txt")]
    kept = ["--find-links", str(folder)]
    if torch_index:
        pinned = re.search(r"(?m)^torch==\S+", (ROOT / "constraints.txt").read_text("utf-8"))
        assert pinned is not None
        subprocess.run([*get, "--no-deps", "--index-url", torch_index, pinned[0]], check=True)
    subprocess.run([*get, *kept, *constrained, f"{own}[server]"], check=True)
    return sorted(folder.glob("*.whl"))


def needed(wheels: "list[Path]") -> "list[Path]":
    """Return the wheels of one version each, the constrained one: a kept folder may hold older."""
    pins = dict(
        re.findall(r"(?m)^([A-Za-z0-9._-]+)==(\S+)", (ROOT / "constraints.txt").read_text("utf-8"))
    )
    wanted = {_plain(name): number for name, number in pins.items()}
    found = []
    for path in wheels:
        name, number = path.name.split("-")[:2]
        pin = wanted.get(_plain(name))
        if pin is None or number.split("+")[0] == pin:
            found.append(path)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(wheels: "list[Path]") -> str:
    """Return the requirements file: every wheel by name, version and hash."""
    lines = []
    for path in wheels:
        name, number = path.name.split("-")[:2]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{name}=={number} --hash=sha256:{digest}\n")
    return "".join(sorted(lines))


def pack(archive: Path, wheels: "list[Path]") -> None:
    """Write the archive; the same wheels give the same bytes.

    Args:
        archive: A tar; wheels are compressed already.
        wheels: What it shall install.
    """
    said = [sbom.read_wheel(path) for path in wheels]
    major, minor = sys.version_info[:2]
    texts = {
        "VERSION": f"{version()}\n".encode(),
        "PYTHON": f"{major}.{minor}\n".encode(),
        "LICENSE": (ROOT / "LICENSE").read_bytes(),
        "requirements.txt": requirements(wheels).encode(),
        sbom.SBOM: sbom.spell(sbom.cyclonedx(NAME, version(), said)),
        **{name: (ROOT / "packaging" / name).read_bytes() for name in PACKAGING},
        **sbom.licence_files(one for one in said if one.name != "gencomp"),
    }
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_suffix(".part")
    top = f"{NAME}-{version()}"
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as made:
        for name, body in sorted(texts.items()):
            made.addfile(_entry(f"{top}/{name}", len(body)), io.BytesIO(body))
        for path in wheels:
            with open(path, "rb") as source:
                made.addfile(_entry(f"{top}/wheels/{path.name}", path.stat().st_size), source)
    part.replace(archive)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """Return an archive entry that depends on name and size alone."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o755 if name.endswith(".sh") else 0o644
    entry.mtime = 315532800  # 1980, as in the bundle for Nuke.
    return entry


def main() -> int:
    """Build the bundle and say where it is and what it weighs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, default=ROOT / "build" / "server-wheels")
    parser.add_argument("--out", type=Path, default=DIST / f"{NAME}-{version()}-{tag()}.tar")
    parser.add_argument("--torch-index", default="")
    args = parser.parse_args()
    wheels = needed(collect(args.wheels, args.torch_index))
    pack(args.out, wheels)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.0f} MB, {len(wheels)} wheels.")
    print(f"tar -xf it and run: sh {NAME}-{version()}/install.sh /opt/gencomp")
    return 0


if __name__ == "__main__":
    sys.exit(main())
