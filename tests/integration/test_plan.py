# SPDX-License-Identifier: Apache-2.0
"""``gencomp plan`` as an artist types it: what a run would take, and nothing written."""

import json

from command_line import FRAMES


def planned(shot):
    """Return the words of a plan of the shot that ``shot.words`` runs."""
    words = shot.words
    return ["plan", *words[1:2], *words[4:]]


def test_a_plan_is_told_in_lines_and_leaves_nothing_behind(shot, gencomp):
    before = sorted(shot.folder.rglob("*"))
    ended = gencomp(*planned(shot))
    assert (ended.code, ended.err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert lines["layers"] == "background, ball"
    assert lines["send"].startswith("0.0 MB of pictures")
    assert sorted(shot.folder.rglob("*")) == before


def test_in_json_it_is_the_plan_and_the_bytes_to_send(shot, gencomp):
    ended = gencomp(*planned(shot), "--json")
    plan = json.loads(ended.out)
    files = [*(shot.plate(n) for n in FRAMES), *(shot.matte(n) for n in FRAMES)]
    assert plan["bytes_to_send"] == sum(path.stat().st_size for path in files)
    assert plan["device"]
    assert [layer["name"] for layer in plan["layers"]] == ["background", "ball"]


def test_a_wrong_knob_ends_with_2_and_a_sentence(shot, gencomp):
    ended = gencomp(*planned(shot), "--set", "gian=1")
    assert ended.code == 2
    assert "Did you mean 'gain'" in ended.err
    assert ended.out == ""
