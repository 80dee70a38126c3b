# SPDX-License-Identifier: Apache-2.0
"""setup.cfg against the folders on disk, and the pins against what is asked for."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "gencomp_protocol": "protocol/gencomp_protocol",
    "gencomp_nuke": "nuke_plugin/gencomp_nuke",
    "gencomp_server": "server/gencomp_server",
}


def setup_cfg():
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg", encoding="utf-8")
    return found


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip()]


def distribution(requirement):
    """Return the normal name at the head of a requirement."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement)[0]).lower()


def pins():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return [line for line in lines(text) if not line.startswith("#")]


def test_every_package_on_disk_is_listed_and_every_listed_one_is_on_disk():
    found = []
    for room, folder in ROOMS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inside = init.parent.relative_to(ROOT / folder).parts
            found.append(".".join((room, *inside)))
    assert sorted(lines(setup_cfg()["options"]["packages"])) == sorted(found)


def test_every_folder_with_modules_is_a_package():
    for folder in ROOMS.values():
        for module in (ROOT / folder).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), module


def test_the_rooms_folders_are_no_packages_themselves():
    for folder in ("protocol", "nuke_plugin", "server", "tests"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_each_room_lies_where_the_distribution_looks_for_it():
    places = dict(
        (part.strip() for part in line.split("="))
        for line in lines(setup_cfg()["options"]["package_dir"])
    )
    assert places == ROOMS


def test_every_requirement_is_pinned_exactly():
    config = setup_cfg()
    wanted = lines(config["options"]["install_requires"])
    for extra in config["options.extras_require"].values():
        wanted += [line for line in lines(extra) if "python_version" not in line]
    pinned = {distribution(pin) for pin in pins()}
    assert {distribution(requirement) for requirement in wanted} <= pinned
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][^\s+]*", pin) for pin in pins())


def test_torch_is_pinned_for_every_build_of_it():
    assert "torch==2.13.0" in pins()


def test_nothing_brings_the_desktop_build_of_opencv_or_what_is_not_used():
    unwanted = {"opencv-python", "torchvision", "peft", "opencv-contrib-python"}
    assert not unwanted & {distribution(pin) for pin in pins()}


def test_the_version_is_the_same_in_the_distribution_and_in_the_code():
    from gencomp_protocol import __version__

    assert setup_cfg()["metadata"]["version"] == __version__


def test_the_command_is_gencomp():
    scripts = lines(setup_cfg()["options.entry_points"]["console_scripts"])
    assert scripts == ["gencomp = gencomp_server.cli:main"]


def test_every_source_file_names_its_licence_first():
    folders = ("protocol", "nuke_plugin", "server", "tests", "tools", "benchmarks")
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            head = path.read_text(encoding="utf-8").split("\n", 2)
            first = head[1] if head[0].startswith("#!") else head[0]
            assert first == "# SPDX-License-Identifier: Apache-2.0", path
