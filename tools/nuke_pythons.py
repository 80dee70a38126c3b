# SPDX-License-Identifier: Apache-2.0
"""Run the tests of what lives inside Nuke under every Python that Nuke has: 3.9 to 3.13.

Each interpreter found gets a small environment of its own (``.venv-3.9``) with pyzmq, msgpack and
pytest, and nothing else: no numpy, no torch. Where ``make nuke-bundle`` has filled ``vendor/``, the
one folder that serves every Nuke, the two packages come from there, behind everything else and in
every process that a test starts. A name on the PATH counts only if it runs, since version managers
put a name there for interpreters that are not chosen. What is missing is said in the closing lines;
a failure anywhere is a failure.

``--beside COMMAND`` runs a command meanwhile, whose output comes first: tests wait a lot, and both
halves together take less than one after the other. The oldest, and the newest that a Nuke has, run
everything; 3.10 and 3.13 the tests that touch every node, and with ``GENCOMP_ALL_CASES=1``, and in
a bundle, everything, too.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

VERSIONS = ("3.9", "3.10", "3.11", "3.13")
TOOLS = ("pytest>=8", "pytest-timeout")
PACKAGES = ("pyzmq", "msgpack")
TESTS = ("tests/protocol", "tests/nuke")
_EVERY_NODE = ("every_node", "gizmos", "in_nuke", "session", "startup", "takes")
_SHORT = ("tests/protocol", *(f"tests/nuke/test_{one}.py" for one in _EVERY_NODE))
SHORT = {"3.10": _SHORT, "3.13": _SHORT}
ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "vendor"
_PROBE = "import sys, venv, ensurepip, tkinter; print('%d.%d' % sys.version_info[:2])"


def candidates(version: str) -> list[str]:
    """Return paths that may be an interpreter of that version, the PATH's first."""
    name = f"python{version}"
    folders = os.environ.get("PATH", "").split(os.pathsep)
    found = [path for path in (shutil.which(name, path=folder) for folder in folders) if path]
    manager = Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv")))
    found += [str(path) for path in sorted(manager.glob(f"versions/{version}.*/bin/{name}"))]
    return list(dict.fromkeys(found))


def find_python(version: str) -> str | None:
    """Return the first interpreter of that version which runs and has venv and tk."""
    for path in candidates(version):
        probe = subprocess.run([path, "-c", _PROBE], capture_output=True, text=True, check=False)
        if probe.returncode == 0 and probe.stdout.strip() == version:
            return path
    return None


def is_vendored() -> bool:
    """Tell whether the folder for every Nuke was built here."""
    return (VENDOR / "bundle.json").is_file()


def environment(version: str, python: str) -> Path:
    """Return the interpreter of the version's own environment, made where it is not there yet."""
    folder = ROOT / (f".venv-vendor-{version}" if is_vendored() else f".venv-{version}")
    own, stamp = folder / "bin" / "python", folder / ".installed"
    packages = TOOLS if is_vendored() else PACKAGES + TOOLS
    wanted = "\n".join(packages)
    if not own.exists() or not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(own), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
        subprocess.run([*pip, *packages], check=True)
        stamp.write_text(wanted, encoding="utf-8")
    if is_vendored():
        asked = [str(own), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        place = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
        (Path(place) / "vendor.pth").write_text(f"{VENDOR}\n", encoding="utf-8")
    return own


def tests_of(version: str) -> "tuple[str, ...]":
    """Return the tests that an interpreter of that version runs."""
    is_whole = is_vendored() or os.environ.get("GENCOMP_ALL_CASES") == "1"
    tests = TESTS if is_whole else SHORT.get(version, TESTS)
    return tuple(place for place in tests if (ROOT / place).exists())


def run_tests(version: str, python: str, arguments: list[str]) -> tuple[bool, str]:
    """Run the tests of the Nuke room; return whether they pass, and what was said.

    The server's own interpreter, which runs this, evaluates pixels for them.
    """
    environ = {**os.environ, "GENCOMP_TEST_SERVER_PYTHON": sys.executable}
    environ["PYTHONPATH"] = ""
    own = str(environment(version, python))
    command = [own, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, *tests_of(version)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stdout


def main(arguments: list[str]) -> int:
    """Run everything and return the exit code: an interpreter to a core, less one for a command."""
    command = arguments[1:] if arguments[:1] == ["--beside"] else []
    words = [] if command else arguments
    pythons = {version: find_python(version) for version in VERSIONS}
    found = {version: python for version, python in pythons.items() if python}
    passed, failed = [], []
    cores = max(1, (os.cpu_count() or 1) - bool(command))
    with ThreadPoolExecutor(max_workers=cores) as pool:
        runs = {v: pool.submit(run_tests, v, python, words) for v, python in found.items()}
        code = subprocess.run(command, cwd=ROOT, check=False).returncode if command else 0
        for version, run in runs.items():
            good, said = run.result()
            print(f"== Python {version}: {', '.join(tests_of(version))}\n{said}", flush=True)
            (passed if good else failed).append(version)
    print(f"== Nuke-side tests, packages from {'vendor' if is_vendored() else 'pip'}")
    missing = [version for version in VERSIONS if version not in found]
    for what, versions in (
        ("passed under", passed),
        ("failed under", failed),
        ("not found:", missing),
    ):
        if versions:
            print(f"{what} Python {', '.join(versions)}")
    if code:
        print(f"failed: {' '.join(command)}")
    return 1 if failed or code else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
