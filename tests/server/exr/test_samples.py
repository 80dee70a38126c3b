# SPDX-License-Identifier: Apache-2.0
"""Sample and damaged EXRs from public repositories: read right, or refused in one sentence.

What is expected of a good file is in ``catalog.csv`` beside the samples, and in its own README.
"""

import numpy as np
import pytest

from gencomp_protocol.errors import BadPicture
from gencomp_protocol.frames import Box
from gencomp_server.exr.decode import DecodePool, DecodeTask
from gencomp_server.exr.read import map_picture

# File, data window, display window, pixel type, R, G, B of the first pixel by value.
READ = {
    "openexr-images/DisplayWindow/t03.exr": (Box(0, 0, 399, 299), Box(30, 20, 399, 299), "half"),
    "openexr-images/DisplayWindow/t13.exr": (Box(0, 0, 399, 299), Box(399, 299, 499, 399), "half"),
    "openexr-images/DisplayWindow/t15.exr": (Box(0, 0, 399, 299), Box(-40, -40, 440, 330), "half"),
    "oiio-images/grid-overscan.exr": (Box(-250, -250, 1249, 1249), Box(0, 0, 999, 999), "half"),
    "openexr-images/Beachball/multipart.0001.exr": (
        Box(654, 245, 1530, 1120),
        Box(0, 0, 2047, 1555),
        "half",
    ),
    "openexr-images/Beachball/singlepart.0001.exr": (
        Box(654, 245, 1564, 1120),
        Box(0, 0, 2047, 1555),
        "half",
    ),
    "cryptomatte/special_chars.exr": (Box(0, 0, 63, 63), Box(0, 0, 63, 63), "float"),
}
REFUSED = {
    "openexr-images/Chromaticities/XYZ_YC.exr": "luminance and subsampled chroma",
    "openexr-images/LuminanceChroma/Garden.exr": "has no R, G and B channels but Y",
    "openexr-images/MultiView/Fog.exr": r"has no R, G and B channels but Y, right\.Y",
    "openexr-images/v2/LowResLeftView/Trunks.exr": "is a deep EXR",
    "openexr-tests/11.deep.exr": "is a deep EXR",
    "openexr-tests/comp_b44.exr": "is compressed as b44, which is not taken here",
    "openexr-tests/comp_early_eof_piz.exr": "has a header that makes no sense",
    "openexr-tests/invalid_shared_attrs_multipart.exr": "ends before its picture does",
    "openexr-tests/v1.7.test.tiled.exr": "has no R, G and B channels but G, Z",
}


@pytest.fixture(scope="module")
def pool():
    made = DecodePool(1)
    yield made
    made.close()


@pytest.fixture
def ask(pool, sample_exrs, tmp_path):
    def run(name, role="rgb"):
        task = DecodeTask(sample_exrs / name, tmp_path / "out", role=role, name="plate", frame=1)
        return pool.submit(task).result()

    return run


@pytest.mark.parametrize("name", READ)
def test_a_good_sample_is_read_with_its_windows(ask, name):
    data, display, kind = READ[name]
    header = ask(name).header
    assert (header.data_window, header.display_window) == (data, display)
    assert header.pixel_type == kind


def test_all_65536_half_values_are_read_bit_for_bit(ask):
    found = map_picture(ask("openexr-images/TestImages/AllHalfValues.exr"))
    bits = np.sort(np.array(found.pixels[..., 0]).view(np.uint16), axis=None)
    assert bits.tolist() == list(range(65536))
    assert found.header.nan_count == 3 * 2048


def test_a_stereo_file_and_its_single_part_twin_agree(ask):
    many = map_picture(ask("openexr-images/Beachball/multipart.0001.exr"))
    both = np.array(many.pixels, np.float32)
    one = map_picture(ask("openexr-images/Beachball/singlepart.0001.exr"))
    # The single part's window is wider by the other view; its first view is the same picture.
    twin = np.array(one.pixels[: both.shape[0], :, :], np.float32)
    assert twin.sum() == pytest.approx(both.sum(), rel=1e-3)


@pytest.mark.fault("F06", optional=True)
@pytest.mark.parametrize("name", REFUSED)
def test_a_sample_of_a_kind_that_is_not_taken_is_refused_by_name(ask, name):
    with pytest.raises(BadPicture, match=REFUSED[name]):
        ask(name)
