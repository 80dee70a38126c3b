# SPDX-License-Identifier: Apache-2.0
"""EXRs of kinds that are not taken: exit code 2, one sentence with the cure, nothing delivered."""

import numpy as np
import pytest

from exr_by_hand import HandPart, write_by_hand

DISPLAY = (0, 0, 7, 5)


def planes(names, kind="float16"):
    return {name: np.full((6, 8), 1, kind) for name in names}


def deep(names, **facts):
    return HandPart(planes(names, "float32"), kind="deepscanline", **facts)


CASES = {
    "whole numbers": (
        [HandPart(planes("RGB", "uint32"))],
        "holds whole numbers in channel 'R'. Write it as 16-bit half or 32-bit float.",
    ),
    "a whole-number alpha": (
        [HandPart({**planes("RGB"), **planes("A", "uint32")})],
        "holds whole numbers in channel 'A'. Write it as 16-bit half or 32-bit float.",
    ),
    "subsampled chroma": (
        [
            HandPart(
                {name: np.full((3, 4), 1, np.float16) for name in ("Y", "RY", "BY")}, sampling=2
            )
        ],
        "is stored as luminance and subsampled chroma. Write it with plain R, G and B channels.",
    ),
    "subsampled colour": (
        [HandPart({name: np.full((3, 4), 1, np.float16) for name in "RGB"}, sampling=2)],
        "has a subsampled channel 'B'. Write every channel at full resolution.",
    ),
    "deep colour": (
        [deep("RGBA", name="deep"), HandPart(planes("Z"), name="depth")],
        "is a deep EXR. Flatten it first (DeepToImage) and write it again.",
    ),
    "luminance alone": (
        [HandPart(planes("Y"))],
        "has no R, G and B channels but Y. Write it with R, G and B.",
    ),
    "layers with a name alone": (
        [HandPart(planes(("beauty.R", "beauty.G", "beauty.B")))],
        "has no R, G and B channels but beauty.B, beauty.G, beauty.R. Write it with R, G and B.",
    ),
}


@pytest.mark.fault("F06")
@pytest.mark.parametrize("case", CASES)
def test_a_kind_of_exr_that_is_not_taken_is_refused_with_its_cure(carry, tmp_path, case):
    parts, said = CASES[case]
    write_by_hand(carry.plate(1001), parts, DISPLAY)
    ended = carry()
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.startswith(f"gencomp: Input 'plate' frame 1001 {said} (report ")
    assert not list((tmp_path / "out").glob("**/*.exr"))
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_whole_numbers_as_data_are_refused_with_their_cure(carry, tmp_path):
    write_by_hand(
        carry.plate(1001), [HandPart({**planes("RGB"), **planes("Z", "uint32")})], DISPLAY
    )
    ended = carry("--input", f"depth={tmp_path}/plate/plate.%04d.exr:Z")
    assert ended.code == 2
    assert "Input 'depth' frame 1001 holds whole numbers in channel 'Z'" in ended.err
