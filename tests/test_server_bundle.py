# SPDX-License-Identifier: Apache-2.0
"""The server's bundle: components and licences read from wheels, hashes, and its installer."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(name):
    if str(ROOT / "tools") not in sys.path:
        sys.path.insert(0, str(ROOT / "tools"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sbom():
    return load("sbom")


@pytest.fixture(scope="module")
def bundle():
    return load("server_bundle")


def wheel(folder, name, version="1.0", said=("License-Expression: MIT",), texts=()):
    """Write a wheel that pip takes, with one module and one command."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"def main():\n    print('{name} {version}')\n",
        f"{info}/METADATA": "\n".join(
            ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *said, ""]
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
        **{f"{info}/{inside}": body for inside, body in texts},
    }
    record = "".join(f"{inside},,\n" for inside in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as made:
        for inside, body in {**files, f"{info}/RECORD": record}.items():
            made.writestr(inside, body)
    return path


def test_a_wheel_says_its_name_version_licence_and_texts(sbom, tmp_path):
    one = sbom.read_wheel(
        wheel(tmp_path, "some_lib", "2.5", texts=[("licenses/LICENSE", "Do as you like.\n")])
    )
    assert (one.name, one.version, one.licence) == ("some_lib", "2.5", "MIT")
    assert one.purl == "pkg:pypi/some-lib@2.5"
    assert list(one.texts.values()) == [b"Do as you like.\n"]


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        (("License: BSD",), "BSD"),
        (
            ("Classifier: License :: OSI Approved :: Apache Software License",),
            "Apache Software License",
        ),
        (("License: A long text\n  of many lines",), "A long text"),
        ((), ""),
    ],
)
def test_a_licence_is_found_in_whatever_way_it_is_said(sbom, tmp_path, said, licence):
    assert sbom.read_wheel(wheel(tmp_path, "lib", said=said)).licence == licence


def test_what_is_no_wheel_is_said(sbom, tmp_path):
    path = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x.py", "")
    with pytest.raises(ValueError, match=r"x-1-py3-none-any\.whl is no wheel"):
        sbom.read_wheel(path)


def test_the_list_of_components_is_cyclonedx(sbom, tmp_path):
    validation = pytest.importorskip("cyclonedx.validation.json", reason="a tool of developers")
    from cyclonedx.schema import SchemaVersion

    wheels = [
        sbom.read_wheel(wheel(tmp_path / "a", "lib", texts=[("LICENSE", "text")])),
        sbom.read_wheel(wheel(tmp_path / "b", "lib")),
        sbom.read_wheel(wheel(tmp_path, "other", said=())),
    ]
    bom = sbom.cyclonedx("gencomp-server", "0.1.0", wheels)
    strict = validation.JsonStrictValidator(SchemaVersion.V1_6)
    assert strict.validate_str(sbom.spell(bom).decode()) is None
    assert [(c["purl"], len(c["hashes"])) for c in bom["components"]] == [
        ("pkg:pypi/lib@1.0", 2),
        ("pkg:pypi/other@1.0", 1),
    ]
    del bom["components"][0]["name"]
    assert strict.validate_str(sbom.spell(bom).decode()) is not None


def test_every_component_has_the_text_of_its_licence_or_a_note_of_what_it_names(sbom, tmp_path):
    with_text = sbom.read_wheel(wheel(tmp_path, "lib", texts=[("licenses/LICENSE.txt", "Text")]))
    without = sbom.read_wheel(wheel(tmp_path, "other"))
    found = sbom.licence_files([with_text, without])
    assert found["third-party-licences/lib-1.0/licenses_LICENSE.txt"] == b"Text"
    assert b"MIT" in found["third-party-licences/other-1.0/NAMED.txt"]


def made(bundle, sbom, tmp_path, version, monkeypatch):
    """Pack a bundle of two tiny wheels under a version, unpack it, return its folder."""
    monkeypatch.setattr(bundle, "version", lambda: version)
    folder = tmp_path / f"wheels-{version}"
    wheels = [wheel(folder, "gencomp", version), wheel(folder, "somelib", "3.0")]
    archive = tmp_path / f"{version}.tar"
    bundle.pack(archive, wheels)
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / version, filter="data")
    return tmp_path / version / f"gencomp-server-{version}"


def install(place, *words, python=sys.executable):
    environ = {**os.environ, "PYTHON": str(python), "PIP_INDEX_URL": "http://127.0.0.1:9/"}
    return subprocess.run(
        ["sh", str(place / "install.sh"), *map(str, words)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_same_wheels_give_the_same_bundle_with_every_hash(bundle, sbom, tmp_path, monkeypatch):
    place = made(bundle, sbom, tmp_path, "0.1.0", monkeypatch)
    first = (tmp_path / "0.1.0.tar").read_bytes()
    bundle.pack(tmp_path / "again.tar", sorted((tmp_path / "wheels-0.1.0").glob("*.whl")))
    assert (tmp_path / "again.tar").read_bytes() == first
    listed = (place / "requirements.txt").read_text()
    assert re.findall(r"(?m)^(\S+) --hash=sha256:[0-9a-f]{64}$", listed) == [
        "gencomp==0.1.0",
        "somelib==3.0",
    ]
    assert {c["name"] for c in json.loads((place / "sbom.cdx.json").read_text())["components"]} == {
        "gencomp",
        "somelib",
    }
    assert (place / "third-party-licences" / "somelib-3.0").is_dir()


def test_of_a_kept_folder_only_the_tested_versions_are_packed(bundle, tmp_path):
    names = [
        "msgpack-1.2.4-cp311-x.whl",
        "msgpack-1.0.0-cp311-x.whl",
        "gencomp-9.9-py3-none-any.whl",
    ]
    pinned = re.search(r"(?m)^msgpack==(\S+)", (ROOT / "constraints.txt").read_text())[1]
    names[0] = f"msgpack-{pinned}-cp311-x.whl"
    found = bundle.needed([tmp_path / name for name in names])
    assert [path.name for path in found] == [names[0], names[2]]


def test_the_installer_says_what_is_wrong_and_leaves_nothing(bundle, sbom, tmp_path, monkeypatch):
    place = made(bundle, sbom, tmp_path, "0.1.0", monkeypatch)
    (place / "PYTHON").write_text("3.2\n")
    told = install(place, tmp_path / "opt")
    assert told.returncode == 1
    assert "this bundle is for Python 3.2" in told.stderr
    assert not (tmp_path / "opt").exists()
    assert install(place).returncode == 2
    assert "there is no option" in install(place, tmp_path / "opt", "--bogus").stderr
    told = install(place, tmp_path / "opt", "--switch", "0.9.0")
    assert told.returncode == 1
    assert "version 0.9.0 is not installed" in told.stderr


@pytest.mark.slow
def test_two_versions_lie_side_by_side_and_current_is_switched(bundle, sbom, tmp_path, monkeypatch):
    older = made(bundle, sbom, tmp_path, "0.1.0", monkeypatch)
    newer = made(bundle, sbom, tmp_path, "0.2.0", monkeypatch)
    opt = tmp_path / "opt"

    def current():
        said = subprocess.run([str(opt / "current/bin/gencomp")], capture_output=True, text=True)
        return said.stdout.strip()

    assert install(older, opt).returncode == 0, install(older, opt).stderr
    assert current() == "gencomp 0.1.0"
    assert install(newer, opt, "--keep-current").returncode == 0
    assert current() == "gencomp 0.1.0"
    assert install(newer, opt, "--switch", "0.2.0").returncode == 0
    assert current() == "gencomp 0.2.0"
    assert install(newer, opt, "--switch", "0.1.0").returncode == 0
    assert current() == "gencomp 0.1.0"
    assert "already" in install(older, opt).stderr
    assert sorted(path.name for path in opt.iterdir()) == ["0.1.0", "0.2.0", "current"]


@pytest.mark.slow
def test_a_wheel_that_was_changed_is_not_installed(bundle, sbom, tmp_path, monkeypatch):
    place = made(bundle, sbom, tmp_path, "0.1.0", monkeypatch)
    shutil.copy(wheel(tmp_path / "other", "somelib", "3.0", said=()), place / "wheels")
    told = install(place, tmp_path / "opt")
    assert told.returncode != 0
    assert "hash" in told.stderr.lower()
    assert "nothing is left behind" in told.stderr
    assert list((tmp_path / "opt").iterdir()) == []


def test_the_unit_and_the_image_say_words_that_the_program_knows():
    from gencomp_server.cli import WRONG
    from gencomp_server.config import ServerConfig

    fields = set(ServerConfig.__dataclass_fields__) | {"home", "config"}
    unit = (ROOT / "packaging" / "gencomp.service").read_text()
    image = (ROOT / "packaging" / "Containerfile").read_text()
    named = re.findall(r"GENCOMP_([A-Z_]+)=", unit + image)
    assert {"HOME", "CONFIG", "LOG_FORMAT"} <= set(named)
    assert {name.lower() for name in named} <= fields
    stop = int(re.search(r"TimeoutStopSec=(\d+)", unit)[1])
    assert stop > ServerConfig().drain_s + 10
    assert f"drain_s ({ServerConfig().drain_s:g} s)" in unit
    assert f"RestartPreventExitStatus={WRONG}" in unit
    assert 'CMD ["serve"]' in image
    assert "/opt/gencomp/current/bin/gencomp serve" in unit
