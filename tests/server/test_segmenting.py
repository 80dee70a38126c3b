# SPDX-License-Identifier: Apache-2.0
"""A segmenter of one's own: what it is given, what it may leave, and every way it can fail."""

import os
import sys
import time

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob, Cancelled, ToolFailed
from gencomp_server.segmenting import Segmenter, check_command, pictures_of

READ_WRITE = """
import os, sys
import cv2, numpy as np
frames, words, out = sys.argv[1:4]
names = sorted(os.listdir(frames))
"""
BRIGHT = """
for name in names:
    picture = cv2.imread(os.path.join(frames, name))
    cv2.imwrite(os.path.join(out, name), (picture[..., 2] > 127).astype(np.uint8) * 255)
"""


@pytest.fixture
def tool(tmp_path):
    """Return a maker of segmenters: a script's body, to a Segmenter that runs it."""

    def make(body, *, timeout_s=20.0, head=READ_WRITE):
        path = tmp_path / "my tool.py"
        path.write_text(head + body)
        return Segmenter(f"'{sys.executable}' '{path}' {{frames}} {{words}} {{out}}", timeout_s)

    return make


def two_pictures():
    """Return two pictures: red in the left half, then in the right half. [2,4,6,3]."""
    made = np.zeros((2, 4, 6, 3), np.uint8)
    made[0, :, :3, 0] = 255
    made[1, :, 3:, 0] = 255
    return made


def test_mattes_come_back_for_every_picture_in_order(tool):
    mattes = tool(BRIGHT).mattes(two_pictures(), "the red part")
    assert mattes.shape == (2, 4, 6, 1)
    assert mattes.dtype == np.float32
    np.testing.assert_array_equal(mattes[0, :, :, 0], [[1, 1, 1, 0, 0, 0]] * 4)
    np.testing.assert_array_equal(mattes[1, :, :, 0], [[0, 0, 0, 1, 1, 1]] * 4)


def test_words_arrive_as_one_argument_whatever_they_hold(tool, tmp_path):
    seen = tmp_path / "seen"
    words = "a dog's {out} bowl; rm -rf $HOME, `date`"
    tool(f"open({str(seen)!r}, 'w').write(words)\n" + BRIGHT).mattes(two_pictures(), words)
    assert seen.read_text() == words


def test_grey_is_coverage(tool):
    half = "for n in names: cv2.imwrite(os.path.join(out, n), np.full((4, 6), 51, np.uint8))"
    mattes = tool(half).mattes(two_pictures(), "x")
    assert np.all(mattes == np.float32(0.2))


def test_a_sequence_in_model_range_is_shown_as_eight_bits():
    video = np.array([-1.5, -1, 0, 1, 2], np.float16).reshape(1, 1, 5, 1).repeat(3, 3)
    (picture,) = pictures_of(video)
    assert picture[0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.exit('no such model')", "ended with 1: no such model"),
        ("", "left no matte 000000.png"),
        ("open(os.path.join(out, names[0]), 'w').write('x')", "000000.png, which is no PNG"),
        ("open(os.path.join(out, names[0]), 'w')", "000000.png, which is no PNG"),
        (
            "for n in names: cv2.imwrite(os.path.join(out, n), np.zeros((2, 3), np.uint8))",
            "left 000000.png at 3x2 instead of 6x4",
        ),
        ("os.mkfifo(os.path.join(out, names[0]))", "left no matte 000000.png"),
        (
            "import struct, zlib\n"
            "head = b'IHDR' + struct.pack('>IIBBBBB', 1 << 24, 1 << 24, 8, 0, 0, 0, 0)\n"
            "data = struct.pack('>I', 13) + head + struct.pack('>I', zlib.crc32(head))\n"
            "open(os.path.join(out, names[0]), 'wb').write(b'\\x89PNG\\r\\n\\x1a\\n' + data)",
            "000000.png, which is no PNG",
        ),
        ("sys.exit('\x1b[2Jgone')", "ended with 1: [2Jgone"),
        ("import signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with -11"),
    ],
)
def test_a_tool_that_fails_is_named_with_what_it_did(tool, body, words):
    with pytest.raises(ToolFailed) as caught:
        tool(body).mattes(two_pictures(), "red")
    assert words in caught.value.message
    assert caught.value.details["tool"] == f"{os.path.basename(sys.executable)} my tool.py"
    assert caught.value.code == "tool-failed"


def test_a_tool_that_is_not_there_is_refused_by_name():
    with pytest.raises(ToolFailed, match="'no-such-tool' cannot be started"):
        Segmenter("/nowhere/no-such-tool {frames} {words} {out}").mattes(two_pictures(), "red")


def test_a_tool_that_takes_too_long_is_ended_with_its_children(tool, tmp_path):
    child = tmp_path / "child"
    body = (
        "import subprocess, time\n"
        f"one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(child)!r}, 'w').write(str(one.pid))\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(ToolFailed, match=r"ended after 2 seconds"):
        tool(body, timeout_s=2, head="import sys\n").mattes(two_pictures(), "red")
    assert not is_running(int(child.read_text()))


def is_running(pid):
    """Tell whether a process still does anything; it may take a moment to be gone."""
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return False
        except FileNotFoundError:
            return False
        time.sleep(0.02)
    return True


def test_when_the_job_is_cancelled_then_the_tool_is_ended(tool):
    def check():
        raise Cancelled("The job was cancelled.")

    with pytest.raises(Cancelled):
        tool("import time; time.sleep(60)", head="").mattes(two_pictures(), "red", check=check)


@pytest.mark.parametrize("words", ["--out=/etc", " -rf", "a dog\0"])
def test_words_that_are_none_are_no_option_of_the_tool(tool, words):
    with pytest.raises(BadKnob, match="words for the segmenter"):
        tool("sys.exit(3)").mattes(two_pictures(), words)


def test_without_words_it_is_not_started(tool):
    with pytest.raises(BadKnob, match="no words"):
        tool("sys.exit(3)").mattes(two_pictures(), "  ")


@pytest.mark.parametrize(
    ("command", "lacking"),
    [
        ("my-tool {frames} {out}", "{words}"),
        ("my-tool", "{frames} and {words} and {out}"),
        ("{frames} {words} {out}", "{frames}"),
    ],
)
def test_a_command_without_its_places_is_refused(command, lacking):
    with pytest.raises(BadKnob) as caught:
        check_command(command)
    assert f"lacks {lacking}." in caught.value.message


def test_a_command_is_named_without_folders_and_options():
    assert (
        Segmenter("ssh -q gpu /opt/find-it --in {frames} {words} {out}").name == "ssh gpu find-it"
    )


def test_a_command_line_that_cannot_be_read_is_refused():
    with pytest.raises(BadKnob, match="no command line"):
        check_command("my-tool '{frames} {words} {out}")


def test_places_may_stand_inside_an_argument(tool, tmp_path):
    path = tmp_path / "my tool.py"
    head = READ_WRITE.replace("sys.argv[1:4]", "[one.split('=')[1] for one in sys.argv[1:4]]")
    path.write_text(head + BRIGHT)
    command = f"'{sys.executable}' '{path}' --clip={{frames}} --text={{words}} --masks={{out}}"
    assert Segmenter(command).mattes(two_pictures(), "red")[0, 0, 0, 0] == 1
