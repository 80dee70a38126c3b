# SPDX-License-Identifier: Apache-2.0
"""Run the tests of what lives inside Nuke under every Python that Nuke has: 3.9 to 3.13.

Each interpreter found gets a small environment of its own (``.venv-3.9``) with pyzmq, msgpack and
pytest, and nothing else: no numpy, no torch. A name on the PATH counts only if it runs, since
version managers put a name there for interpreters that are not chosen. What is missing is said in
the closing lines; a failure anywhere is a failure.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSIONS = ("3.9", "3.10", "3.11", "3.13")
PACKAGES = ("pyzmq", "msgpack", "pytest>=8", "pytest-timeout")
TESTS = ("tests/protocol", "tests/nuke")
ROOT = Path(__file__).resolve().parent.parent
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


def environment(version: str, python: str) -> Path:
    """Return the interpreter of the version's own environment, made where it is not there yet."""
    folder = ROOT / f".venv-{version}"
    own, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = "\n".join(PACKAGES)
    if not own.exists() or not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(own), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
        subprocess.run([*pip, *PACKAGES], check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return own


def run_tests(python: Path, arguments: list[str]) -> bool:
    """Run the tests of the Nuke room; the server's own interpreter evaluates pixels for them."""
    tests = [folder for folder in TESTS if (ROOT / folder).is_dir()]
    environ = {**os.environ, "GENCOMP_TEST_SERVER_PYTHON": sys.executable, "PYTHONPATH": ""}
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, *tests]
    return subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode == 0


def main(arguments: list[str]) -> int:
    """Run everything and return the exit code."""
    passed, failed, missing = [], [], []
    for version in VERSIONS:
        python = find_python(version)
        if python is None:
            missing.append(version)
            continue
        print(f"== Python {version}: {', '.join(TESTS)}", flush=True)
        good = run_tests(environment(version, python), arguments)
        (passed if good else failed).append(version)
    print("== Nuke-side tests")
    for what, versions in (("passed", passed), ("failed", failed), ("not found", missing)):
        if versions:
            print(f"{what} under Python {', '.join(versions)}".replace("found under", "found:"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
