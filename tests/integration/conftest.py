# SPDX-License-Identifier: Apache-2.0
"""What the integration tests are given: a shot of three frames and the command."""

import pytest

from command_line import FRAMES, Shot, finish, matte_of, plate_of, start, write_picture


@pytest.fixture
def shot(tmp_path):
    """Return a shot of three frames."""
    made = Shot(tmp_path)
    for frame in FRAMES:
        write_picture(made.plate(frame), plate_of(frame), ("R", "G", "B"))
        write_picture(made.matte(frame), matte_of(), ("A",))
    return made


@pytest.fixture
def gencomp():
    """Return a function that runs the command to its end."""
    return lambda *words: finish(start(*words))
