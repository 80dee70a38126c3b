# SPDX-License-Identifier: Apache-2.0
"""What was made in one colour space is never found again in another."""

from dataclasses import dataclass

import pytest

from gencomp_protocol.frames import FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.engine.stages import StageStore

CG = "ocio://cg-config-v2.1.0_aces-v1.3_ocio-v2.3"
STUDIO = "ocio://studio-config-v2.1.0_aces-v1.3_ocio-v2.3"


@dataclass(frozen=True)
class OneFrame:
    """As much of a shot as a key looks at."""

    request: Request
    names: tuple[str, ...] = ("plate",)

    @property
    def frames(self):
        return self.request.frames

    def frames_of(self, name):
        return (1,)

    def digest(self, name, n):
        return "d" * 64


@pytest.fixture
def key(tmp_path):
    store = StageStore(tmp_path)

    def made(working_space, ocio=""):
        plate = InputHeader("plate", (1,))
        request = Request("x", FrameRange(1, 1), (plate,), {}, working_space, ocio=str(ocio))
        return store.key("see", OneFrame(request))

    return made


def test_another_space_or_another_config_is_another_stage(key, shelf):
    asked = [
        *(("scene_linear", ""), ("ACEScg", ""), ("ACES2065-1", ""), ("ACEScg", STUDIO)),
        *(("scene_linear", shelf / "named.ocio"), ("scene_linear", shelf / "aces.ocio")),
    ]
    assert len({key(*one) for one in asked}) == len(asked)


def test_the_same_space_by_another_name_is_the_same_stage(key):
    assert key("scene_linear (ACES - ACEScg)", CG) == key("scene_linear", CG)
    assert key("ACEScg") == key("ACEScg", CG)
    assert key("linear") == key("scene_linear")


def test_a_config_that_changed_under_its_name_is_another_stage(key, tmp_path, shelf):
    file = tmp_path / "config.ocio"
    file.write_text((shelf / "named.ocio").read_text())
    before = key("green first", file)
    file.write_text(file.read_text().replace("[0, 1, 0, 0, 1, 0,", "[0, 1, 0, 0, 2, 0,"))
    assert key("green first", file) != before
