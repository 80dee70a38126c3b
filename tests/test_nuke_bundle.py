# SPDX-License-Identifier: Apache-2.0
"""The bundle for Nuke: wheels laid over each other, an archive that is the same every time."""

import html
import importlib.util
import json
import posixpath
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"


@pytest.fixture(scope="module")
def bundle():
    spec = importlib.util.spec_from_file_location("nuke_bundle", TOOLS / "nuke_bundle.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["nuke_bundle"] = module
    spec.loader.exec_module(module)
    return module


def wheel(folder, name, files):
    """Write a wheel of those files."""
    path = folder / f"{name}.whl"
    with zipfile.ZipFile(path, "w") as made:
        for inside, body in files.items():
            made.writestr(inside, body)
    return path


def laid(bundle, tmp_path, target, files, into=None):
    into = {} if into is None else into
    number = len(list(tmp_path.iterdir()))
    bundle.unpack(wheel(tmp_path, f"w{number}", files), bundle.Target(*target), into)
    return into


@pytest.mark.parametrize(
    ("target", "name", "own"),
    [
        (("3.13", "linux"), "a/_z.abi3.so", "a/_z.cpython-313-x86_64-linux-gnu.so"),
        (("3.13", "macos"), "a/_z.abi3.so", "a/_z.cpython-313-darwin.so"),
        (("3.13", "windows"), "a/_z.pyd", "a/_z.cp313-win_amd64.pyd"),
        (("3.9", "windows"), "a/_z.cp39-win_amd64.pyd", "a/_z.cp39-win_amd64.pyd"),
        (("3.9", "linux"), "a.libs/libz-1.so.5.2", "a.libs/libz-1.so.5.2"),
    ],
)
def test_what_is_compiled_has_the_name_of_its_python(bundle, tmp_path, target, name, own):
    assert list(laid(bundle, tmp_path, target, {name: b"\0"})) == [own]


def test_the_stable_abi_of_two_systems_lies_in_one_folder(bundle, tmp_path):
    into = laid(bundle, tmp_path, ("3.13", "linux"), {"z/_z.abi3.so": b"\0elf"})
    laid(bundle, tmp_path, ("3.13", "macos"), {"z/_z.abi3.so": b"\0mach"}, into)
    assert sorted(into.values()) == [b"\0elf", b"\0mach"]


def test_two_wheels_that_differ_in_a_file_are_refused(bundle, tmp_path):
    into = laid(bundle, tmp_path, ("3.9", "linux"), {"z/a.py": b"one\n"})
    with pytest.raises(bundle.Collision, match=r"another z/a\.py"):
        laid(bundle, tmp_path, ("3.10", "linux"), {"z/a.py": b"two\n"}, into)


def test_lines_that_end_as_on_windows_are_no_difference(bundle, tmp_path):
    into = laid(bundle, tmp_path, ("3.9", "linux"), {"z/a.py": b"one\n"})
    laid(bundle, tmp_path, ("3.9", "windows"), {"z/a.py": b"one\r\n"}, into)
    assert into == {"z/a.py": b"one\n"}


def test_what_is_compiled_stays_as_it_is(bundle, tmp_path):
    body = b"\0\r\n\r\n\x01"
    into = laid(bundle, tmp_path, ("3.9", "linux"), {"z.libs/libz.so.5.2.5": body})
    assert into == {"z.libs/libz.so.5.2.5": body}


def test_what_only_a_compiler_or_pip_reads_is_left_out_and_licences_stay(bundle, tmp_path):
    files = {
        "z/a.pxd": b"",
        "z/tests/b.py": b"",
        "z-1.dist-info/RECORD": b"",
        "z-1.dist-info/WHEEL": b"",
        "z-1.dist-info/licenses/LICENSE": b"free",
    }
    into = laid(bundle, tmp_path, ("3.9", "linux"), files)
    assert list(into) == ["z-1.dist-info/licenses/LICENSE"]


def test_every_nuke_on_every_system_is_served(bundle):
    assert len(bundle.TARGETS) == 12
    assert {target.python for target in bundle.TARGETS} == {"3.9", "3.10", "3.11", "3.13"}
    # Nuke 14 runs where glibc is 2.17, the later ones where it is 2.28.
    old, new = bundle.Target("3.9", "linux"), bundle.Target("3.10", "linux")
    assert "manylinux_2_28_x86_64" not in old.platforms
    assert "manylinux_2_28_x86_64" in new.platforms


@pytest.fixture
def project(bundle, monkeypatch, tmp_path):
    """Return a small project in the place of this one."""
    files = {
        "init.py": "init",
        "setup.cfg": "[metadata]\nversion = 1.2.3\n",
        "gizmos/A.gizmo": "gizmo",
        "nuke_plugin/n/__pycache__/a.pyc": "left out",
        "nuke_plugin/n/a.py": "module",
        "server/s.py": "left out",
        "vendor/zmq/.dylibs/z.dylib": "hidden and needed",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(bundle, "ROOT", tmp_path)
    return tmp_path


def test_the_archive_holds_nukes_side_in_one_folder_and_says_what_it_holds(bundle, project):
    contents = bundle.pack(project / "a.zip", {"packages": ["pyzmq==1"]})
    with zipfile.ZipFile(project / "a.zip") as archive:
        names = archive.namelist()
        assert json.loads(archive.read("gencomp/bundle.json")) == contents
    assert names == [
        "gencomp/init.py",
        "gencomp/gizmos/A.gizmo",
        "gencomp/nuke_plugin/n/a.py",
        "gencomp/vendor/zmq/.dylibs/z.dylib",
        "gencomp/bundle.json",
    ]
    assert (contents["version"], contents["packages"]) == ("1.2.3", ["pyzmq==1"])
    assert contents["files"]["init.py"] == {
        "bytes": 4,
        "sha256": "bb54068aea85faa7e487530083366be9962390af822e4c71ef1aca7033c83e66",
    }


def test_the_same_files_make_the_same_archive(bundle, project):
    for name in ("a.zip", "b.zip"):
        bundle.pack(project / name, {})
        (project / "init.py").touch()
    assert (project / "a.zip").read_bytes() == (project / "b.zip").read_bytes()


def test_everything_that_the_archive_names_is_in_the_project(bundle):
    assert [entry for entry in bundle.OWN if not (ROOT / entry).exists()] == []


@pytest.mark.slow
def test_the_wheels_of_every_nuke_lie_in_one_folder_and_a_socket_works(bundle, tmp_path):
    made = bundle.build_vendor(tmp_path / "wheels", tmp_path / "vendor")
    assert len(made["wheels"]) == 24
    code = (
        f"import sys; sys.path.append({str(tmp_path / 'vendor')!r})\n"
        "import zmq, msgpack, msgpack._cmsgpack\n"
        "context = zmq.Context(); a = context.socket(zmq.PAIR); b = context.socket(zmq.PAIR)\n"
        "a.bind('inproc://x'); b.connect('inproc://x'); a.send(msgpack.packb({'n': 1}))\n"
        "print(msgpack.unpackb(b.recv()), zmq.__file__)\n"
        "a.close(0); b.close(0); context.term()\n"
    )
    spec = importlib.util.spec_from_file_location("nuke_pythons", TOOLS / "nuke_pythons.py")
    pythons = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pythons)
    found = [python for python in map(pythons.find_python, bundle.PYTHONS) if python]
    assert found, "no Python of any Nuke is here"
    for python in found:
        said = subprocess.run(
            [python, "-I", "-c", code], capture_output=True, text=True, check=True
        )
        assert said.stdout.startswith(f"{{'n': 1}} {tmp_path / 'vendor'}")


# --- the pages of the help -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def help_pages(bundle):
    """Return the tool that makes the pages, and all that it makes."""
    markdown = pytest.importorskip("markdown", reason="make docs installs it")
    return bundle.help_pages, bundle.help_pages.pages(markdown)


def test_every_gizmo_has_a_page_where_its_button_looks_for_it(help_pages):
    _, pages = help_pages
    for path in (ROOT / "gizmos").glob("*.gizmo"):
        text = pages[f"artist/{path.stem.lower()}.html"].decode()
        assert "<h2" in text
        assert "<table>" in text
        assert re.search(rf"\b{path.stem}\b", text)


def test_every_link_and_picture_of_the_help_is_in_it(help_pages):
    _, pages = help_pages
    ids = {
        name: set(re.findall(r' id="([^"]*)"', body.decode()))
        for name, body in pages.items()
        if name.endswith(".html")
    }
    count = 0
    for name in ids:
        text = pages[name].decode()
        for target in re.findall(r'(?:href|src)="([^"]*)"', text):
            if re.match(r"https?:", target):
                continue
            place, _, anchor = html.unescape(target).partition("#")
            to = posixpath.normpath(posixpath.join(posixpath.dirname(name), place))
            to = to if place else name
            assert to in pages, f"{name}: {target}"
            assert not anchor or anchor in ids[to], f"{name}: {target}"
            count += 1
        assert "<script" not in text
    assert count > 200


def test_the_same_pages_make_the_same_help_in_the_archive(bundle, help_pages, project, tmp_path):
    tool, pages = help_pages
    names = tool.build(tmp_path / "none", project / "help")
    assert names == sorted(pages)
    contents = bundle.pack(project / "a.zip", {})
    assert {n for n in contents["files"] if n.startswith("help/")} == {f"help/{n}" for n in pages}
    assert (project / "help" / "artist" / "dynvfx.html").read_bytes() == pages["artist/dynvfx.html"]


def test_a_link_to_a_page_that_is_not_there_ends_the_build(help_pages, tmp_path):
    tool, _ = help_pages
    for folder in tool.READERS:
        (tmp_path / folder).mkdir()
    (tmp_path / "artist" / "one.md").write_text("# One\n[two](two.md) and [why](../why.md)\n")
    with pytest.raises(tool.BrokenPage, match=r"artist/one\.md links to two\.md"):
        tool.build(tmp_path / "none", tmp_path / "out", tmp_path)
    (tmp_path / "artist" / "two.md").write_text("# Two\n![x](x.png)\n")
    (tmp_path / "why.md").write_text("# Why\n")
    with pytest.raises(tool.BrokenPage, match=r"artist/two\.md shows x\.png"):
        tool.build(tmp_path / "none", tmp_path / "out", tmp_path)
    (tmp_path / "artist" / "x.png").write_bytes(b"png")
    names = tool.build(tmp_path / "none", tmp_path / "out", tmp_path)
    assert names == ["artist/one.html", "artist/two.html", "artist/x.png"]
    text = (tmp_path / "out" / "artist" / "one.html").read_text()
    assert '<a href="two.html">two</a> and why' in text
