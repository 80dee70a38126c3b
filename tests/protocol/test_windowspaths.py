# SPDX-License-Identifier: Apache-2.0
"""Windows' rules of paths, asked on whatever system the tests run."""

import pytest

from gencomp_protocol.errors import BadName
from gencomp_protocol.layers import check_object_names
from gencomp_protocol.windowspaths import MOST_CHARACTERS, is_device, why_not


@pytest.mark.parametrize(
    "name", ["con", "CON", "nul.exr", "Aux.0001.exr", "com1", "LPT9.x", "prn "]
)
def test_the_name_of_a_device_is_one_with_any_suffix(name):
    assert is_device(name)


@pytest.mark.parametrize("name", ["console", "com", "com10", "lpt0", "_con", "nula", "c.on"])
def test_what_only_looks_like_a_device_is_none(name):
    assert not is_device(name)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("P:/show/con/v001", "'con' is a device"),
        (r"\\srv\share\shot\aux.exr", "'aux.exr' is a device"),
        ("P:/show/a:b", "holds ':'"),
        ("show/what?/x", "holds '?'"),
        ("P:/show/shot ", "ends with ' '"),
        ("P:/show./x", "ends with '.'"),
        ("P:/" + "a" * 300, "characters"),
    ],
)
def test_what_windows_cannot_have_is_said(path, reason):
    assert reason in why_not(path)


@pytest.mark.parametrize(
    "path",
    ["P:/show/shot_010/v001", r"\\srv\share\a b\ü", "../gencomp/x", "./a.b/c", r"C:\Users\ada", ""],
)
def test_what_windows_can_have_is_not_refused(path):
    assert why_not(path) is None


def test_what_comes_behind_a_folder_counts():
    path = "P:/" + "a" * (MOST_CHARACTERS - 13)
    assert why_not(path, spare=10) is None
    assert "it has 260 characters" in why_not(path, spare=11)


@pytest.mark.parametrize("name", ["con", "Aux", "LPT1", "nul"])
def test_an_object_that_windows_cannot_have_a_folder_for_is_refused_everywhere(name):
    with pytest.raises(BadName, match="Windows"):
        check_object_names([name])
