# SPDX-License-Identifier: Apache-2.0
"""Every other channel goes through a whole job bit for bit, on request, and what cannot is said."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from exr_by_hand import HandPart, attribute, read_by_hand, text, write_by_hand

DISPLAY = (0, 0, 47, 31)
ORIGIN, HEIGHT, WIDTH = (-4, -3), 39, 57  # overscan, and odd in both
FRAMES = (1001, 1002)
BITS = {"float16": np.uint16, "float32": np.uint32, "uint32": np.uint32}
MANIFEST = '{"/world/boy":"0bf1c3d2","/world/sea":"7f800001"}'
CRYPTO = {
    "name": text("cryptomatte/ab12cd3/name", "CryptoAsset"),
    "hash": text("cryptomatte/ab12cd3/hash", "MurmurHash3_32"),
    "conversion": text("cryptomatte/ab12cd3/conversion", "uint32_to_float32"),
    "manifest": text("cryptomatte/ab12cd3/manifest", MANIFEST),
    "sidecar": text("cryptomatte/ab12cd3/manif_file", "/shows/secret/crypto.json"),
}


def noise(kind, frame, seed, shape=(HEIGHT, WIDTH)):
    """Return every bit pattern alike: NaN with payloads, infinities and denormals among them."""
    rng = np.random.default_rng([frame, seed])
    return rng.integers(0, np.iinfo(BITS[kind]).max, shape, BITS[kind], endpoint=True).view(kind)


def colour(frame, shape=(HEIGHT, WIDTH)):
    rng = np.random.default_rng(frame)
    return {name: rng.uniform(-0.5, 60.0, shape).astype(np.float16) for name in "RGBA"}


def main_part(frame, **facts):
    channels = {
        **colour(frame),
        "depth.Z": noise("float32", frame, 1),
        "N.X": noise("float16", frame, 2),
        "N.Y": noise("float16", frame, 3),
        "id.object": noise("uint32", frame, 4),
        "a.layer.with.a.rather.long.name.CryptoAsset00.red": noise("float32", frame, 5),
        "CryptoAsset00.green": noise("float32", frame, 6),
    }
    return HandPart(channels, ORIGIN, attributes=dict(CRYPTO), **facts)


ON = ("--set", "other_channels=on")


def assert_same(delivered, sent, names):
    for name in names:
        got, want = delivered[name], sent[name]
        assert got.dtype == want.dtype, name
        assert got.tobytes() == want.tobytes(), name


def samples_by_library(path, number, name):
    """Return one channel as another reader of EXR has it."""
    file = oiio.ImageInput.open(str(path))
    assert file.seek_subimage(number, 0)
    spec = file.spec()
    place = list(spec.channelnames).index(name)
    kind = str(spec.channelformat(place))
    made = np.asarray(file.read_image(number, 0, place, place + 1, kind))
    file.close()
    return made[..., 0]


def test_every_channel_of_a_plate_comes_back_in_its_type_and_bits(carry):
    for frame in FRAMES:
        write_by_hand(carry.plate(frame), [main_part(frame)], DISPLAY)
    ended = carry(*ON)
    assert ended.code == 0, ended.err
    for frame in FRAMES:
        sent = main_part(frame).channels
        (part,) = read_by_hand(carry.file("result", frame))
        assert set(part.channels) == set(sent)
        assert_same(part.channels, sent, sent)
        assert part.window == (-4, -3, 52, 35)
        for name in sent:
            assert samples_by_library(carry.file("result", frame), 0, name).tobytes() == (
                sent[name].tobytes()
            )


def test_cryptomatte_says_what_it_said_and_no_path_goes_along(carry):
    write_by_hand(carry.plate(1001), [main_part(1001)], DISPLAY)
    assert carry(*ON).code == 0
    (part,) = read_by_hand(carry.file("result", 1001))
    assert part.string("cryptomatte/ab12cd3/manifest") == MANIFEST
    assert part.string("cryptomatte/ab12cd3/name") == "CryptoAsset"
    assert part.string("cryptomatte/ab12cd3/conversion") == "uint32_to_float32"
    assert b"secret" not in carry.file("result", 1001).read_bytes()
    assert part.string("gencomp:layer") == "result"


def test_parts_and_views_come_back_in_order_with_their_own_windows(carry):
    rights = {}
    for frame in FRAMES:
        right = colour(frame + 50, (20, 11))
        rights[frame] = {**right, "Z": noise("float32", frame, 9, (20, 11))}
        parts = [
            HandPart({"Z": noise("uint32", frame, 8, (3, 5))}, (7, 9), name="ids"),
            main_part(frame, name="left.rgba"),
            HandPart(rights[frame], (-1, 2), name="right.rgba"),
        ]
        parts[1].attributes["view"] = text("view", "left")
        parts[2].attributes["view"] = text("view", "right")
        write_by_hand(carry.plate(frame), parts, DISPLAY)
    ended = carry(*ON)
    assert ended.code == 0, ended.err
    assert Path(ended.named("done")[0]["contact_sheet"]).stat().st_size > 1000
    for frame in FRAMES:
        ids, left, right = read_by_hand(carry.file("result", frame))
        assert [one.string("name") for one in (ids, left, right)] == [
            *("ids", "left.rgba", "right.rgba")
        ]
        assert (left.string("view"), right.string("view")) == ("left", "right")
        assert (ids.window, right.window) == ((7, 9, 11, 11), (-1, 2, 9, 21))
        assert_same(ids.channels, {"Z": noise("uint32", frame, 8, (3, 5))}, ["Z"])
        sent = main_part(frame).channels
        assert_same(left.channels, sent, sent)
        assert_same(right.channels, rights[frame], rights[frame])
        assert samples_by_library(carry.file("result", frame), 2, "Z").tobytes() == (
            rights[frame]["Z"].tobytes()
        )


def test_views_in_one_part_keep_their_list_of_names(carry):
    part = main_part(1001)
    part.channels["right.R"] = noise("float16", 1001, 12)
    names = b"".join(struct.pack("<i", len(one)) + one for one in (b"left", b"right"))
    part.attributes["multiView"] = attribute("multiView", "stringvector", names)
    write_by_hand(carry.plate(1001), [part], DISPLAY)
    assert carry(*ON).code == 0
    (read,) = read_by_hand(carry.file("result", 1001))
    assert read.attributes["multiView"] == ("stringvector", names)
    assert_same(read.channels, part.channels, ["right.R"])


def test_nothing_goes_along_where_it_is_not_asked_for_or_the_layer_carries_nothing(carry):
    write_by_hand(carry.plate(1001), [main_part(1001)], DISPLAY)
    assert carry().code == 0
    (part,) = read_by_hand(carry.file("result", 1001))
    assert sorted(part.channels) == ["B", "G", "R"]
    assert "cryptomatte/ab12cd3/name" not in part.attributes
    assert carry(*ON).code == 0
    (spot,) = read_by_hand(carry.file("spot", 1001))
    assert sorted(spot.channels) == ["A", "B", "G", "R"]
    assert spot.window == (1, 0, 3, 2)


def test_the_manifest_lists_what_went_along(carry, tmp_path):
    write_by_hand(carry.plate(1001), [main_part(1001)], DISPLAY)
    assert carry(*ON).code == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["report"]["other_channels_of_plate"] == [
        *("A", "CryptoAsset00.green", "N.X", "N.Y"),
        *("a.layer.with.a.rather.long.name.CryptoAsset00.red", "depth.Z", "id.object"),
    ]
    assert manifest["warnings"] == []


def test_a_still_plate_carries_its_channels_to_every_frame(carry, tmp_path):
    part = main_part(1)
    write_by_hand(tmp_path / "plate" / "one.exr", [part], DISPLAY)
    ended = carry(*ON, "--frames", "1001-1003", plate="one.exr")
    assert ended.code == 0, ended.err
    for frame in (1001, 1002, 1003):
        assert_same(
            read_by_hand(carry.file("result", frame))[0].channels, part.channels, part.channels
        )


def test_a_png_has_nothing_to_carry(carry, tmp_path):
    path = tmp_path / "plate" / "plate.1001.png"
    path.parent.mkdir()
    spec = oiio.ImageSpec(8, 8, 3, "uint8")
    file = oiio.ImageOutput.create(str(path))
    assert file.open(str(path), spec)
    assert file.write_image(np.full((8, 8, 3), 128, np.uint8))
    file.close()
    ended = carry(*ON, plate="plate.%04d.png")
    assert ended.code == 0, ended.err
    assert sorted(read_by_hand(carry.file("result", 1001))[0].channels) == ["B", "G", "R"]


def test_a_deep_part_is_left_out_by_name_and_the_job_goes_on(carry):
    for frame in FRAMES:
        fog = HandPart({"Z": np.zeros((4, 4), np.float32)}, name="fog", kind="deepscanline")
        depth = struct.pack("<i", 1)
        fog.attributes["version"] = attribute("version", "int", depth)
        fog.attributes["most"] = attribute("maxSamplesPerPixel", "int", bytes(4))
        write_by_hand(carry.plate(frame), [main_part(frame, name="rgba"), fog], DISPLAY)
    ended = carry(*ON)
    assert ended.code == 0, ended.err
    (said,) = [one["sentence"] for one in ended.named("warning")]
    assert said.startswith("Input 'plate': the deep part 'fog' is left out of the other channels")
    assert "1001-1002" in said
    (part,) = read_by_hand(carry.file("result", 1001))
    assert_same(part.channels, main_part(1001).channels, ["id.object", "depth.Z"])


def test_a_subsampled_part_is_left_out_by_name_and_the_job_goes_on(carry):
    flow = HandPart({"u": np.ones((4, 5), np.float16)}, name="flow", sampling=2)
    write_by_hand(carry.plate(1001), [main_part(1001, name="rgba"), flow], DISPLAY)
    ended = carry(*ON)
    assert ended.code == 0, ended.err
    (said,) = [one["sentence"] for one in ended.named("warning")]
    assert "the part 'flow' with subsampled channels is left out" in said
    (part,) = read_by_hand(carry.file("result", 1001))
    assert_same(part.channels, main_part(1001).channels, ["id.object", "depth.Z"])


def test_a_damaged_second_part_is_refused_before_anything_is_made(carry, tmp_path):
    write_by_hand(carry.plate(1001), [main_part(1001)], DISPLAY)
    parts = [main_part(1002, name="rgba"), HandPart({"Z": np.ones((9, 9), np.float32)}, name="z")]
    write_by_hand(carry.plate(1002), parts, DISPLAY)
    data = bytearray(carry.plate(1002).read_bytes())
    last = len(data) - (12 + 36)
    assert struct.unpack_from("<iii", data, last) == (1, 8, 36)
    struct.pack_into("<i", data, last + 8, 12)
    carry.plate(1002).write_bytes(data)
    ended = carry(*ON)
    assert ended.code == 2
    assert "'plate' frame 1002" in ended.err
    assert not list((tmp_path / "out").glob("*/*.exr"))
    assert carry().code == 0


def test_data_is_read_from_its_channel_unclamped(carry, tmp_path):
    part = main_part(1001)
    depth = np.full((HEIGHT, WIDTH), 7.0, np.float32)
    depth[0, :3] = (-3.5, 1e9, 0.25)
    part.channels["depth.Z"] = depth
    write_by_hand(carry.plate(1001), [part], DISPLAY)
    ended = carry("--input", f"depth={tmp_path}/plate/plate.%04d.exr")
    assert ended.code == 0, ended.err
    assert ended.named("warning") == []
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["report"]["depth 1001"] == [-3.5, 1e9, 0.25]
    assert manifest["inputs"]["depth"]["channels"] == ["depth.Z"]
    named = carry("--input", f"depth={tmp_path}/plate/plate.%04d.exr:N.X")
    assert named.code == 0, named.err


def test_data_without_a_finite_sample_is_refused(carry, tmp_path):
    part = main_part(1001)
    part.channels["depth.Z"] = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    write_by_hand(carry.plate(1001), [part], DISPLAY)
    ended = carry("--input", f"depth={tmp_path}/plate/plate.%04d.exr")
    assert ended.code == 2
    assert "Input 'depth' frame 1001 has no finite sample in depth.Z" in ended.err


# --- files of others -----------------------------------------------------------------------------

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
SAMPLES = Path(os.environ.get("GENCOMP_SHARED_DATA", BESIDE)) / "exr"


@pytest.mark.parametrize(
    "name",
    [
        "colour-nuke/ACEScg_ColorChecker2014.exr",
        "cryptomatte/special_chars.exr",
        "openexr-images/Beachball/singlepart.0001.exr",
        "openexr-images/Beachball/multipart.0001.exr",
        "oiio-images/grid-overscan.exr",
    ],
)
def test_files_of_others_go_through_bit_for_bit(carry, name):
    sent = SAMPLES / name
    if not sent.is_file():
        pytest.skip("the sample EXRs are not here; set GENCOMP_SHARED_DATA to their folder")
    carry.plate(1001).parent.mkdir()
    carry.plate(1001).symlink_to(sent)
    ended = carry(*ON)
    assert ended.code == 0, ended.err
    assert ended.named("warning") == []
    delivered = carry.file("result", 1001)
    before, after = by_library(sent), by_library(delivered)
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        assert new.channels == old.channels
        assert new.windows == old.windows
        assert new.bits == old.bits
        for key, value in old.facts.items():
            assert new.facts.get(key) == value, key


def by_library(path):
    """Return all that OpenImageIO finds in a file, part by part."""
    file, parts, number = oiio.ImageInput.open(str(path)), [], 0
    while file.seek_subimage(number, 0):
        spec = file.spec()
        kinds = [str(spec.channelformat(at)) for at in range(spec.nchannels)]
        bits = [
            np.asarray(file.read_image(number, 0, at, at + 1, kind)).tobytes()
            for at, kind in enumerate(kinds)
        ]
        kept = ("cryptomatte/", "view", "multiView", "oiio:subimagename")
        facts = {one.name: one.value for one in spec.extra_attribs if one.name.startswith(kept)}
        parts.append(
            Everything(dict(zip(spec.channelnames, kinds, strict=True)), bits, facts, spec)
        )
        number += 1
    file.close()
    return parts


class Everything:
    """One part as a library has it."""

    def __init__(self, channels, bits, facts, spec):
        self.channels, self.facts = channels, facts
        self.bits = dict(zip(channels, bits, strict=True))
        self.windows = (spec.x, spec.y, spec.width, spec.height)
        self.windows += (spec.full_x, spec.full_y, spec.full_width, spec.full_height)
