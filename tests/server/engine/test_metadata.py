# SPDX-License-Identifier: Apache-2.0
"""What stands in a delivered file, by the server's setting; read back out of the file."""

from dataclasses import dataclass, replace

import numpy as np
import OpenImageIO as oiio
import pytest

from gencomp_protocol.codec import request_to_plain
from gencomp_protocol.layers import LayerSpec
from gencomp_server.contract import CommonParams, LayerFrame, Machine, knob
from gencomp_server.engine import running
from gencomp_server.provenance import FULL, HASHES, MINIMAL, text_hash

PROMPT = "a red car for Ann of /mnt/show"
OF_THE_PLATE = {
    "smpte:TimeCode": (0x01020304, 0),
    "isoSpeed": 800.0,
    "ImageDescription": "graded by Ann",
    "pipeline/operator": "Ann",
}


@dataclass(frozen=True)
class Params(CommonParams):
    prompt: str = knob("", doc="Does nothing.")


def run(shot, params, ctx):
    for n in shot.frames:
        header = shot.header("plate", n)
        pixels = np.ones((2, 4, 4), np.float16)
        windows = (header.display_window, header.data_window, 1.0)
        yield LayerFrame("made", n, pixels, tuple("RGBA"), *windows, OF_THE_PLATE)


class Mailbox:
    """Takes what the runner says."""

    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)

    def is_cancelled(self, job):
        return False


@pytest.fixture
def attributes(tiny_job, monkeypatch):
    """Return a function that runs a job and gives the attributes of a file of it."""
    pool = running.DecodePool(1)
    monkeypatch.setattr(running, "DecodePool", lambda *given, **more: pool)
    system = replace(
        tiny_job.system, params=Params, run=run, layers=lambda request: (LayerSpec("made"),)
    )
    request = tiny_job.request(knobs={"prompt": PROMPT}, client="nuke 15 of Ann")
    message = {"request": request_to_plain(request), "pictures": tiny_job.pictures}

    def read(level):
        mailbox = Mailbox()
        runner = running.Runner((system,), Machine(), tiny_job.spool, mailbox, metadata=level)
        runner.run({"job": level, **message})
        assert mailbox.said[-1]["is"] == "done", mailbox.said[-1]
        file = oiio.ImageInput.open(str(tiny_job.spool.layer(level, "made", 1001)))
        found = {one.name: one.value for one in file.spec().extra_attribs}
        file.close()
        return found

    yield read
    pool.close()


def test_a_file_says_as_much_as_the_setting_lets_it(attributes):
    full, hashes, minimal = (attributes(level) for level in (FULL, HASHES, MINIMAL))

    assert PROMPT in full["gencomp:knobs"]
    assert full["gencomp:client"] == "nuke 15 of Ann"
    assert (full["ImageDescription"], full["pipeline/operator"]) == ("graded by Ann", "Ann")
    assert full["gencomp:prompt_hash"] == text_hash(PROMPT)

    assert not any(word in repr(hashes) for word in ("Ann", "red car", "/mnt"))
    assert hashes["gencomp:prompt_hash"] == text_hash(PROMPT)
    assert len(hashes["gencomp:inputs_hash"]) == 64
    assert (hashes["smpte:TimeCode"][0], hashes["isoSpeed"]) == (0x01020304, 800.0)
    assert hashes["gencomp:layer"] == "made"

    ours = sorted(name for name in minimal if name.startswith("gencomp:"))
    assert ours == ["gencomp:layer", "gencomp:system", "gencomp:version"]
    assert "smpte:TimeCode" in minimal
    assert not {"isoSpeed", "ImageDescription", "pipeline/operator"} & set(minimal)
