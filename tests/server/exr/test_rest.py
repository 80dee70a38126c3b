# SPDX-License-Identifier: Apache-2.0
"""All but R, G and B out of the decoder and into a layer's file again: every bit, every type."""

import struct

import numpy as np
import pytest

from gencomp_protocol.errors import BadPicture, error_from_wire
from gencomp_protocol.frames import Box
from gencomp_protocol.layers import RGBA
from gencomp_server.contract import LayerFrame
from gencomp_server.exr import carry
from gencomp_server.exr.decode import DecodeTask, read_decoded
from gencomp_server.exr.decoder import answer
from gencomp_server.exr.header import parse_exr
from gencomp_server.exr.read import map_rest
from gencomp_server.exr.rest import Rest, RestChannel, RestPart, left_out_sentences
from gencomp_server.exr.write import write_layer

BITS = {"float16": np.uint16, "float32": np.uint32, "uint32": np.uint32}


def noise(kind, shape=(5, 3), seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(BITS[kind]).max, shape, BITS[kind], endpoint=True).view(kind)


def colour(shape=(5, 3)):
    return {name: np.full(shape, place, np.float16) for place, name in enumerate("RGB")}


@pytest.fixture
def rest_of(tmp_path):
    """Return a function that decodes the rest of a file's bytes, mapped."""

    def run(data):
        source, target = tmp_path / "picture", tmp_path / "decoded"
        source.write_bytes(data)
        said = answer(DecodeTask(source, target, role="rest", name="plate", frame=1001))
        if "error" in said:
            raise error_from_wire(said["error"])
        return map_rest(read_decoded(target))

    return run


def test_each_type_comes_as_it_is_less_r_g_and_b(handmade, rest_of):
    sent = {
        "Z": noise("float32"),
        "id": noise("uint32"),
        "N.X": noise("float16"),
        "A": noise("float16"),
    }
    mapped = rest_of(handmade.exr({**colour(), **sent}, origin=(-2, 7)))
    assert mapped.rest.names == ("A", "N.X", "Z", "id")
    assert mapped.rest.parts[0].data_window == Box(-2, 7, 0, 11)
    for plane in mapped.planes[0]:
        assert plane.samples.dtype == sent[plane.name].dtype
        assert plane.samples.tobytes() == sent[plane.name].tobytes()


def test_strips_of_a_tall_part_meet_without_a_seam(handmade, rest_of, monkeypatch):
    monkeypatch.setattr(carry, "_STRIP_BYTES", 1)
    shape = (600, 3)
    sent = {
        "Z": noise("float32", shape),
        "a": noise("float32", shape, 2),
        "b": noise("float16", shape),
    }
    mapped = rest_of(handmade.exr({**colour(shape), **sent}))
    for plane in mapped.planes[0]:
        assert plane.samples.tobytes() == sent[plane.name].tobytes()


def test_a_picture_of_r_g_and_b_alone_has_no_rest(handmade, rest_of):
    mapped = rest_of(handmade.exr(colour()))
    assert (mapped.rest.names, mapped.rest.bytes, mapped.planes) == ((), 0, ((),))


def test_other_parts_come_whole_even_where_they_have_r_g_and_b(handmade, rest_of):
    right = {name: noise("float16", (2, 4)) for name in "RGB"}
    data = handmade.multipart(
        [("ids", {"n": noise("uint32")}), ("left", colour()), ("right", right)]
    )
    mapped = rest_of(data)
    assert mapped.rest.names == ("ids:n", "right:B", "right:G", "right:R")
    assert mapped.rest.colour == 1
    assert [part.name for part in mapped.rest.parts] == ["ids", "left", "right"]


def test_a_manifest_of_many_objects_goes_along_whole(handmade, rest_of):
    manifest = "{" + ",".join(f'"/set/leaf{n}":"{n:08x}"' for n in range(2000)) + "}"
    extra = handmade.attribute("cryptomatte/1f2e3d4/manifest", "string", manifest.encode())
    extra += handmade.attribute("cryptomatte/1f2e3d4/note", "string", b"of nobody")
    metadata = rest_of(handmade.exr(colour(), extra=extra)).rest.parts[0].metadata
    assert dict(metadata) == {"cryptomatte/1f2e3d4/manifest": manifest}


def test_more_than_is_taken_is_refused_with_a_cure(handmade, rest_of, monkeypatch):
    monkeypatch.setattr(carry, "MAX_REST_BYTES", 16)
    with pytest.raises(BadPicture, match="channels besides R, G and B") as caught:
        rest_of(handmade.exr({**colour(), "Z": noise("float32")}))
    assert "switch other_channels off" in caught.value.hint


def test_a_file_cut_in_its_pixels_leaves_nothing_behind(handmade, rest_of, tmp_path):
    data = bytearray(handmade.exr({**colour(), "Z": noise("float32")}))
    struct.pack_into("<i", data, len(data) - 30 - 4, 9)
    with pytest.raises(BadPicture):
        rest_of(bytes(data))
    assert [path.name for path in tmp_path.iterdir()] == ["picture"]


def test_what_is_left_out_is_said_once_for_all_frames():
    part = RestPart("rgba", Box(0, 0, 1, 1), (RestChannel("Z", "float"),))
    foggy, clear = Rest((part,), 0, ("the deep part 'fog'",)), Rest((part,), 0)
    assert left_out_sentences("plate", {1001: foggy, 1002: clear, 1003: foggy, 1004: foggy}) == (
        "Input 'plate': the deep part 'fog' is left out of the other channels at 1001, 1003-1004; "
        "flat channels at full resolution are carried.",
    )


# --- into a file again ---------------------------------------------------------------------------


def written(tmp_path, mapped, window, channels=RGBA, **facts):
    shape = (window.height, window.width, len(channels))
    picture = LayerFrame(
        *("clean", 1001, noise("float16", shape, 9), channels, window, window), **facts
    )
    path = tmp_path / "clean.1001.exr"
    write_layer(path, picture, {"gencomp:layer": "clean"}, mapped)
    return path


def test_a_layers_own_channels_take_the_place_of_the_plates(handmade, rest_of, decode, tmp_path):
    mapped = rest_of(handmade.exr({**colour(), "A": noise("float16"), "Z": noise("float32")}))
    window = Box(0, 0, 2, 4)
    path = written(tmp_path, mapped, window)
    (part,) = parse_exr(path, "it")
    assert [(one.name, one.pixel_type) for one in part.channels] == [
        *(("A", "half"), ("B", "half"), ("G", "half"), ("R", "half"), ("Z", "float"))
    ]
    pixels, _ = decode(path.read_bytes())
    assert pixels.tobytes() == noise("float16", (5, 3, 4), 9).tobytes()


def test_an_alpha_the_layer_lacks_is_the_plates(handmade, rest_of, decode, tmp_path):
    alpha = noise("float16")
    mapped = rest_of(handmade.exr({**colour(), "A": alpha}))
    path = written(tmp_path, mapped, Box(0, 0, 2, 4), RGBA[:3])
    pixels, _ = decode(path.read_bytes(), role="matte")
    assert pixels.tobytes() == alpha.tobytes()


def test_a_layer_of_another_window_is_a_part_of_its_own(handmade, rest_of, tmp_path):
    mapped = rest_of(handmade.exr({**colour(), "Z": noise("float32")}))
    own, other = parse_exr(written(tmp_path, mapped, Box(1, 1, 2, 2)), "it")
    assert (own.name, own.data_window) == ("rgba", Box(1, 1, 2, 2))
    assert (other.name, other.data_window) == ("other", Box(0, 0, 2, 4))
    assert [one.name for one in other.channels] == ["Z"]


def test_what_all_parts_share_is_the_layers_in_each(handmade, rest_of, tmp_path):
    mapped = rest_of(handmade.multipart([("z", {"Z": noise("float32")}), ("rgb", colour())]))
    timecode = {"smpte:TimeCode": (0x01020304, 0)}
    path = written(tmp_path, mapped, Box(0, 0, 2, 4), metadata=timecode)
    raw = b"timeCode\0timecode\0\x08\0\0\0" + struct.pack("<II", 0x01020304, 0)
    assert path.read_bytes().count(raw) == 2
    assert path.read_bytes().count(b"gencomp:layer\0") == 1
