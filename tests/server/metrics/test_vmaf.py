# SPDX-License-Identifier: Apache-2.0
"""Raw video for vmaf, and its answer."""

import stat
import sys

import numpy as np
import pytest

from gencomp_protocol.errors import BadPicture
from gencomp_server.metrics.vmaf import RawVideo, planes, run_vmaf

TOOL = """#!{python}
import json, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
{body}
"""
ANSWERS = """
rows = [open(words[flag], "rb").read() for flag in ("--reference", "--distorted")]
frames = rows[0].count(b"FRAME\\n")
where = sys.argv[sys.argv.index("--output") + 1]
json.dump({"frames": [{"metrics": {"vmaf": 90.0 + n}} for n in range(frames)]}, open(where, "w"))
"""


def tool(tmp_path, body):
    path = tmp_path / "vmaf"
    path.write_text(TOOL.replace("{python}", sys.executable).replace("{body}", body))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def videos(tmp_path, frames=2):
    made = [RawVideo(tmp_path / name) for name in ("a.y4m", "b.y4m")]
    for video in made:
        for _ in range(frames):
            video.write(np.zeros((4, 6, 3), np.float32))
        video.close()
    return [video.path for video in made]


# BT.709 at 10-bit video levels: black 64, white 940, no colour 512; red: luma 64 + 876 * 0.2126.
@pytest.mark.parametrize(
    ("colour", "codes"),
    [
        ((0, 0, 0), (64, 512, 512)),
        ((1, 1, 1), (940, 512, 512)),
        ((1, 0, 0), (250, 409, 960)),
        ((0, 0, 1), (127, 960, 471)),
    ],
)
def test_colours_have_the_codes_of_bt709(colour, codes):
    found = planes(np.full((2, 2, 3), colour, np.float32))
    assert tuple(int(plane[0, 0]) for plane in found) == codes


def test_odd_sizes_have_chroma_rounded_up():
    luma, blueness, _ = planes(np.zeros((5, 7, 3), np.float32))
    assert (luma.shape, blueness.shape) == ((5, 7), (3, 4))


def test_a_raw_video_has_one_head_and_so_many_bytes_a_frame(tmp_path):
    data = videos(tmp_path)[0].read_bytes()
    head = b"YUV4MPEG2 W6 H4 F25:1 Ip A1:1 C420p10\n"
    assert data.startswith(head + b"FRAME\n\x40\x00")
    assert len(data) == len(head) + 2 * (6 + 2 * (24 + 6 + 6))


def test_the_answer_of_every_frame_is_read(tmp_path):
    found = run_vmaf(tool(tmp_path, ANSWERS), *videos(tmp_path), tmp_path / "answer.json")
    assert found == [90.0, 91.0]


def test_a_tool_that_fails_is_quoted(tmp_path):
    path = tool(tmp_path, "sys.exit('it only takes even sizes')")
    with pytest.raises(BadPicture, match="it only takes even sizes"):
        run_vmaf(path, *videos(tmp_path), tmp_path / "answer.json")


def test_a_tool_that_answers_nonsense_is_refused(tmp_path):
    path = tool(tmp_path, ANSWERS.replace('"vmaf"', '"psnr"'))
    with pytest.raises(BadPicture, match="makes no sense"):
        run_vmaf(path, *videos(tmp_path), tmp_path / "answer.json")
