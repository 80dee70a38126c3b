# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: the contracts in setup.cfg, and what a fresh interpreter really loads."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "server" / "gencomp_server"
ROOTS = [str(ROOT / room) for room in ("protocol", "nuke_plugin", "server")]
HEAVY = ("torch", "diffusers", "transformers", "cv2", "OpenEXR", "OpenImageIO", "PyOpenColorIO")

# Third-party names and the only places that may say them.
DOORS = {
    "OpenEXR": ("exr/attributes.py", "exr/write.py"),
    "OpenImageIO": ("exr/",),
    "PyOpenColorIO": ("colour/",),
    "torch": (
        "parts/conditioning.py",
        "parts/paper_alpha.py",
        "parts/latents.py",
        "parts/denoising.py",
        "parts/editing.py",
        "parts/inversion.py",
        "parts/sampler.py",
        "parts/schedule.py",
        "parts/windows.py",
        "models/",
        "engine/machine.py",
        "engine/residency.py",
        "doctor.py",
        "training/checkpoint.py",
        "training/conditions.py",
        "training/export.py",
        "training/grids.py",
        "training/loop.py",
        "training/preview_",
    ),
    "accelerate": ("training/loop.py",),
    "zmq": ("service.py", "door.py", "doorkeeper.py"),
    "aiohttp": ("web/",),
    "prometheus_client": ("web/",),
    "rich": ("progress.py", "measure_cli.py"),
    "diffusers": ("models/",),
    "transformers": ("models/",),
    "lpips": ("models/",),
}
# What talks to other machines by address, and the only module that may say it: off until it is set.
ASKING = ("http", "urllib.request", "ftplib", "smtplib", "xmlrpc", "webbrowser", "asyncio")
ASKING += ("requests", "httpx", "aiohttp", "urllib3", "huggingface_hub")
MAY_ASK = "server/gencomp_server/assistant.py"
# Whoever answers others and asks nobody: the page, a process of its own.
ANSWERS = {
    "server/gencomp_server/web/serving.py": {"asyncio", "aiohttp.web"},
    "server/gencomp_server/web_cli.py": {"asyncio"},
}


def loaded_by(statement, names):
    """Return which of the modules a statement loads in a fresh interpreter."""
    code = f"import sys; sys.path[:0] = {ROOTS!r}; {statement}; "
    code += f"print(*[name for name in {names!r} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path):
    """Return the top-level names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_the_import_contracts_hold():
    pytest.importorskip("importlinter")
    run = "from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    code = f"import sys; sys.path[:0] = {ROOTS!r}; {run}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "module",
    [
        *("service", "config", "contract", "backbones", "cost", "weights", "tensorfile"),
        *("engine.worker", "engine.machine", "engine.ingest", "exr.decode"),
    ],
)
def test_the_front_process_loads_no_model_library_and_no_picture_library(module):
    assert loaded_by(f"import gencomp_server.{module}", HEAVY) == []


@pytest.mark.parametrize("module", ["service", "cli"])
def test_the_server_loads_nothing_of_the_page_that_is_a_process_of_its_own(module):
    assert loaded_by(f"import gencomp_server.{module}", ("aiohttp", "prometheus_client")) == []


def test_the_page_loads_no_model_library_and_no_picture_library():
    assert loaded_by("import gencomp_server.web.serving", (*HEAVY, "numpy")) == []


def test_the_registry_loads_no_model_library_and_no_picture_library():
    assert loaded_by("from gencomp_server.systems import REGISTRY", HEAVY) == []


def test_the_front_with_the_real_registry_still_loads_none():
    statement = (
        "from gencomp_server.service import load_registry; "
        "load_registry('gencomp_server.systems:REGISTRY')"
    )
    assert loaded_by(statement, HEAVY) == []


@pytest.mark.parametrize("room", ["gencomp_protocol", "gencomp_nuke"])
def test_what_lives_in_nuke_loads_neither_numpy_nor_torch(room):
    assert loaded_by(f"import {room}", (*HEAVY, "numpy", "gencomp_server")) == []


def test_third_party_names_stay_behind_their_doors():
    for path in sorted(SERVER.rglob("*.py")):
        place = path.relative_to(SERVER).as_posix()
        for name in imported(path) & set(DOORS):
            assert place.startswith(DOORS[name]), f"{place} imports {name}"


def modules_named(path):
    """Return the whole names of what a file imports, wherever in it."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_nothing_but_the_assistant_can_ask_an_address():
    found = {
        path.relative_to(ROOT).as_posix()
        for room in ROOTS
        for path in Path(room).rglob("*.py")
        for name in modules_named(path)
        if f"{name}.".startswith(tuple(f"{one}." for one in ASKING))
        and name not in ANSWERS.get(path.relative_to(ROOT).as_posix(), ())
    }
    assert found == {MAY_ASK}


def test_nobody_prints_but_the_command():
    for path in sorted((*SERVER.rglob("*.py"), *(ROOT / "protocol").rglob("*.py"))):
        tree = parsed(path)
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        prints = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
        assert not prints or path.name in ("cli.py", "weights_cli.py"), path


def test_no_module_is_named_for_nothing():
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "lib"}
    for folder in ("protocol", "nuke_plugin", "server", "tests"):
        assert not {path.stem for path in (ROOT / folder).rglob("*.py")} & vague


def test_nobody_catches_everything_and_says_nothing():
    for path in sorted((*SERVER.rglob("*.py"), *(ROOT / "protocol").rglob("*.py"))):
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            place = f"{path}:{node.lineno}"
            assert node.type is not None, place
            wide = isinstance(node.type, ast.Name) and node.type.id.endswith("Exception")
            assert not (wide and isinstance(node.body[0], ast.Pass)), place
