# SPDX-License-Identifier: Apache-2.0
"""Files that somebody made to do harm: refused in one sentence or read right, within bounds."""

import struct
import time

import numpy as np
import OpenImageIO as oiio
import psutil
import pytest

from faults.figures import DEATHS, DECODED, MEMORY, REFUSED, TRIED
from gencomp_protocol.codec import decode as from_wire
from gencomp_protocol.codec import encode as to_wire
from gencomp_protocol.errors import BadPicture
from gencomp_protocol.messages import Refusal
from gencomp_server.config import ServerConfig
from gencomp_server.exr import images, pixels
from gencomp_server.exr.decode import DecodePool, DecodeTask
from gencomp_server.exr.decoder import answer
from gencomp_server.exr.header import choose_colour, parse_exr
from gencomp_server.exr.read import map_picture
from hostile import BOMBS, bomb, header_end, mutate

SEEDS = 60  # Of each compression.
SLOWEST_S = 5.0  # A picture of 20x80 takes some milliseconds; a machine that is busy, more.
COMPRESSIONS = ("none", "zip", "piz", "dwaa")


def write(path, samples, names=("R", "G", "B"), compression="zip", tile=0):
    """Write an EXR with OpenImageIO and return its bytes."""
    spec = oiio.ImageSpec(samples.shape[1], samples.shape[0], samples.shape[2], "half")
    spec.channelnames = names
    spec["compression"] = compression
    spec["DateTime"] = "2026:01:31 10:15:02"  # The library's is the present, and no seed.
    spec.tile_width = spec.tile_height = tile
    target = oiio.ImageOutput.create(str(path))
    assert target.open(str(path), spec), target.geterror()
    assert target.write_image(samples)
    target.close()
    return path.read_bytes()


def noise(height=80, width=20, channels=3):
    """Return samples that no compression makes small. [H,W,C] float16, 0.25 to 1."""
    return np.random.default_rng(7).uniform(0.25, 1.0, (height, width, channels)).astype("float16")


@pytest.fixture(scope="module")
def pool():
    made = DecodePool(1, timeout_s=20.0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Return a good file's bytes by compression."""
    folder = tmp_path_factory.mktemp("good")
    return {one: write(folder / f"{one}.exr", noise(), compression=one) for one in COMPRESSIONS}


@pytest.fixture
def ask(pool, tmp_path):
    """Return a function that has bytes decoded and says what came of it, and how long it took."""

    def run(data, role="rgb", frame=1001):
        source = tmp_path / f"picture.{frame}"
        source.write_bytes(data)
        begun = time.monotonic()
        task = DecodeTask(source, tmp_path / f"out.{frame}", role=role, name="plate", frame=frame)
        future = pool.submit(task)
        error = future.exception()
        return (future.result() if error is None else error), time.monotonic() - begun

    return run


class Tally:
    """What became of damaged files: how many were refused, read, or killed who read them."""

    def __init__(self, measured):
        self._measured = measured
        self._before = decoders()
        self.tried = self.refused = self.decoded = self.deaths = 0

    def note(self, said):
        """Note what one file came to."""
        self.tried += 1
        self.refused += isinstance(said, BadPicture)
        self.decoded += not isinstance(said, BaseException)
        self.deaths += "decoder died" in str(said)

    def close(self, most_bytes=None):
        """Put what was counted on the page; a bound holds for the decoder's most memory."""
        now = decoders()
        self.deaths += len(set(self._before) - set(now))
        self._measured(TRIED, self.tried)
        self._measured(REFUSED, self.refused)
        self._measured(DECODED, self.decoded)
        self._measured(DEATHS, self.deaths, most=0)
        assert self.refused + self.decoded == self.tried
        most = max(map(peak_bytes, set(now) - set(self._before) or now))
        limit = None if most_bytes is None else most_bytes / 2**20
        self._measured(MEMORY, most / 2**20, "MiB", most=limit)


@pytest.fixture
def tally(ask, good, measured):
    """Return a tally of what the pool's one decoder does from now on."""
    ask(good["zip"])
    for pid in decoders():
        forget_peak(pid)
    return Tally(measured)


def is_sentence(error):
    """Tell whether somebody can act on a refusal."""
    whole = error.message.startswith("Input 'plate' frame ") and error.message.endswith(".")
    return whole and bool(error.hint) and "decoder died" not in error.message


# --- F01 -----------------------------------------------------------------------------------------


@pytest.mark.fault("F01")
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("cut", ["half", "the last 64 bytes", "the last byte"])
def test_a_truncated_picture_is_refused_by_its_frame_within_a_second(
    ask, good, tmp_path, compression, cut
):
    data = good[compression]
    kept = {"half": len(data) // 2, "the last 64 bytes": -64, "the last byte": -1}[cut]
    ask(data, frame=1)  # The process is up, as a server's is.
    said, took_s = ask(data[:kept], frame=1002)
    assert isinstance(said, BadPicture)
    assert said.message == "Input 'plate' frame 1002 ends before its picture does."
    assert said.details == {"input": "plate", "frame": 1002}
    assert took_s < 1.0
    assert not list(tmp_path.glob("out.1002*"))
    assert not list(tmp_path.glob(".*"))


# --- F02 -----------------------------------------------------------------------------------------


@pytest.mark.fault("F02")
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_whatever_is_done_to_a_good_file_it_is_refused_or_read(ask, good, tally, compression):
    accepted = []
    for seed in range(SEEDS):
        made = mutate(good[compression], seed)
        said, took_s = ask(made.data, frame=seed)
        tally.note(said)
        assert took_s < SLOWEST_S, made.name
        if isinstance(said, BadPicture):
            assert is_sentence(said), (made.name, said)
            continue
        assert not isinstance(said, BaseException), (made.name, said)
        # None is read as nothing: these pictures have no black sample.
        assert said.stats.nonzero > 0.9 * said.bytes / 2 / 2, made.name
        accepted.append(made.name)
    tally.close()
    assert 0 < len(accepted) < SEEDS / 2


@pytest.mark.fault("F02")
@pytest.mark.parametrize("kind", ["cut", "offset", "size", "swap"])
def test_no_file_is_taken_whose_chunks_are_not_where_they_should_be(ask, good, tally, kind):
    seen = 0
    for compression, data in good.items():
        for seed in range(400):
            made = mutate(data, seed)
            if not made.name.startswith(f"{kind}-") or made.data == data:
                continue
            seen += 1
            said, _ = ask(made.data, frame=seed)
            tally.note(said)
            assert isinstance(said, BadPicture), (compression, made.name)
            if seen % 4 == 0:
                break
    tally.close()
    assert seen >= 12


@pytest.mark.fault("F02")
@pytest.mark.parametrize("compression", ["zip", "none"])
def test_a_chunk_that_says_it_is_empty_is_no_black_strip(ask, good, compression):
    data = bytearray(good[compression])
    (offset,) = struct.unpack_from("<Q", data, header_end(data))
    struct.pack_into("<i", data, offset + 4, 0)
    said, _ = ask(bytes(data))
    assert isinstance(said, BadPicture)


@pytest.mark.parametrize(("compression", "size"), [("zip", 0), ("none", 0), ("none", 8)])
def test_a_chunk_of_another_size_is_seen_before_a_library_reads(good, tmp_path, compression, size):
    data = bytearray(good[compression])
    (offset,) = struct.unpack_from("<Q", data, header_end(data))
    struct.pack_into("<i", data, offset + 4, size)
    (tmp_path / "odd.exr").write_bytes(data)
    with pytest.raises(BadPicture, match="it has pixels that are not where its header says"):
        choose_colour(parse_exr(tmp_path / "odd.exr", "it"), "it")


def test_chunks_that_stand_for_each_other_are_seen_before_a_library_reads(good, tmp_path):
    for compression, data in good.items():
        at = header_end(data)
        first, second = data[at : at + 8], data[at + 8 : at + 16]
        (tmp_path / "odd.exr").write_bytes(data[:at] + second + first + data[at + 16 :])
        (part,) = parse_exr(tmp_path / "odd.exr", "it")
        assert not part.is_sound, compression


@pytest.mark.fault("F02", optional=True)
@pytest.mark.parametrize("role", ["rgb", "matte"])
def test_every_damaged_sample_is_refused_quickly_in_little_memory(
    sample_exrs, tmp_path, measured, role
):
    pool = DecodePool(1)
    files = sorted((sample_exrs / "openexr-images" / "Damaged").iterdir())
    files = [path for path in files if path.suffix != ".rst"]
    assert len(files) >= 87
    slowest_s, tally = 0.0, Tally(measured)
    for n, path in enumerate(files):
        begun = time.monotonic()
        error = pool.submit(
            DecodeTask(path, tmp_path / f"{n}", role=role, name="plate", frame=n)
        ).exception()
        slowest_s = max(slowest_s, time.monotonic() - begun) if n else slowest_s
        tally.note(error)
        assert isinstance(error, BadPicture), (path.name, error)
        assert is_sentence(error), (path.name, error)
    tally.close(400 << 20)
    pool.close()
    measured(f"slowest damaged sample, as {role}", slowest_s, "s", most=SLOWEST_S)
    assert list(tmp_path.iterdir()) == []


def decoders():
    """Return the ids of the decoder processes that run."""
    return sorted(
        child.pid
        for child in psutil.Process().children()
        if "gencomp_server.exr.decoder" in child.cmdline()
    )


def forget_peak(pid):
    """Let the kernel count a process's peak anew."""
    with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peak_bytes(pid):
    """Return the most memory that a process held since it is counted."""
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        (line,) = [one for one in lines if one.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


# --- F04 -----------------------------------------------------------------------------------------


@pytest.mark.fault("F04")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_header_before_memory_is_taken(ask, good, name):
    ask(good["zip"])
    (decoder,) = decoders()
    forget_peak(decoder)
    held = peak_bytes(decoder)
    said, took_s = ask(BOMBS[name], frame=3)
    assert isinstance(said, BadPicture)
    assert is_sentence(said)
    assert decoders() == [decoder]
    assert peak_bytes(decoder) - held < 100 << 20
    assert took_s < 0.1


# --- F05 -----------------------------------------------------------------------------------------

WINDOWS = {
    "overscan": ((-250, -250), (0, 0, 31, 31)),
    "far to the left and above": ((-5000, -5000), (0, 0, 1919, 1079)),
    "far to the right and below": ((5000, 5000), (0, 0, 1919, 1079)),
    "a display window that begins elsewhere": ((90, 40), (100, 50, 355, 305)),
    "across zero": ((-1, -1), (-8, -8, 7, 7)),
}


@pytest.mark.fault("F05")
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_that_are_odd_come_back_as_they_are(ask, handmade, name):
    origin, display = WINDOWS[name]
    planes = {c: noise()[..., n] for n, c in enumerate("RGB")}
    said, _ = ask(handmade.exr(planes, origin=origin, display=display))
    box = said.header.data_window
    assert (box.x0, box.y0, box.width, box.height) == (*origin, 20, 80)
    box = said.header.display_window
    assert (box.x0, box.y0, box.x1, box.y1) == display
    assert (np.array(map_picture(said).pixels) == noise()).all()


@pytest.mark.fault("F05")
@pytest.mark.parametrize("name", ["a line of a million", "a row of a million", "all of 32 bits"])
def test_a_window_larger_than_is_taken_is_refused_with_its_size(ask, name):
    said, _ = ask(BOMBS[name])
    assert isinstance(said, BadPicture)
    assert "claims to be" in said.message
    assert "16384 a side" in said.hint


@pytest.mark.fault("F05")
def test_ten_thousand_pixels_a_side_about_zero_are_more_than_is_taken_of_colour(ask, handmade):
    said, _ = ask(bomb((-5000, -5000, 5000, 5000)))
    assert isinstance(said, BadPicture)
    assert is_sentence(said)


# --- F06 -----------------------------------------------------------------------------------------


@pytest.mark.fault("F06")
def test_two_thousand_whole_channels_are_refused_within_two_seconds(ask, handmade):
    line = np.ones((2, 2), np.float16)
    said, took_s = ask(handmade.exr({f"c{n:04d}": line for n in range(2000)}))
    assert isinstance(said, BadPicture)
    assert "has 2000 channels" in said.message
    assert took_s < 2.0


@pytest.mark.fault("F06")
def test_tiles_of_one_pixel_are_read_within_two_seconds(ask, tmp_path):
    data = write(tmp_path / "tiled.exr", noise(64, 64), compression="none", tile=1)
    assert data[5] & 2
    said, took_s = ask(data)
    assert (np.array(map_picture(said).pixels) == noise(64, 64)).all()
    assert took_s < 2.0


@pytest.mark.fault("F06")
def test_more_tiles_than_are_taken_are_refused_within_two_seconds(ask):
    said, took_s = ask(BOMBS["one-pixel tiles"])
    assert "has 268435456 tiles or strips" in said.message
    assert took_s < 2.0


@pytest.mark.fault("F06")
def test_luminance_and_chroma_are_refused_with_their_cure(ask, handmade):
    line = np.ones((2, 2), np.float16)
    said, took_s = ask(handmade.exr(dict.fromkeys(("Y", "RY", "BY"), line), sampling=2))
    assert "luminance and subsampled chroma" in said.message
    assert said.hint == "Write it with plain R, G and B channels."
    assert took_s < 2.0


@pytest.mark.fault("F06")
def test_a_deep_file_is_refused_with_its_cure(ask, handmade):
    line = np.ones((2, 2), np.float16)
    said, took_s = ask(handmade.exr(dict.fromkeys("RGB", line), flags=0x800))
    assert str(said).endswith("is a deep EXR. Flatten it first (DeepToImage) and write it again.")
    assert took_s < 2.0


@pytest.mark.fault("F06")
def test_of_many_parts_the_first_with_colour_is_read(ask, handmade):
    depth = {"Z": np.full((2, 2), 9, np.float16)}
    parts = [(f"p{n:02d}", depth) for n in range(40)]
    colour = {c: np.full((2, 2), n + 1, np.float16) for n, c in enumerate("RGB")}
    said, took_s = ask(handmade.multipart([*parts, ("beauty", colour)]))
    assert map_picture(said).pixels[0, 0].tolist() == [1.0, 2.0, 3.0]
    assert took_s < 2.0


@pytest.mark.parametrize("compression", ["pxr24", "b44", "b44a"])
def test_a_compression_that_nobody_sends_is_refused_by_name(ask, tmp_path, compression):
    said, _ = ask(write(tmp_path / "odd.exr", noise(), compression=compression))
    assert isinstance(said, BadPicture)
    assert f"is compressed as {compression}, which is not taken here" in said.message
    assert "zip, piz" in said.hint


def test_a_compression_may_be_allowed(tmp_path):
    write(tmp_path / "odd.exr", noise(), compression="pxr24")
    limits = ServerConfig(picture_compressions=("pxr24",)).picture_limits()
    said = answer(DecodeTask(tmp_path / "odd.exr", tmp_path / "out"), limits)
    assert said["stats"]["nonzero"] == noise().size


# --- F07 -----------------------------------------------------------------------------------------


def other_files(folder):
    """Return files of other kinds by what a sentence calls them."""
    made = {}
    for suffix, what in (("tif", "a TIFF"), ("dpx", "a DPX"), ("png", "a PNG"), ("jpg", "a JPEG")):
        path = folder / f"picture.{suffix}"
        spec = oiio.ImageSpec(8, 8, 3, "uint8")
        target = oiio.ImageOutput.create(str(path))
        assert target.open(str(path), spec), target.geterror()
        assert target.write_image(np.full((8, 8, 3), 90, np.uint8))
        target.close()
        made[what] = path.read_bytes()
    made["a Photoshop file"] = b"8BPS\0\1" + bytes(64)
    made["a GIF"] = b"GIF89a" + bytes(64)
    made["of an unknown kind"] = bytes(64)
    return made


@pytest.mark.fault("F07")
def test_another_picture_named_exr_never_reaches_a_library(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pixels, "open_input", lambda *words: asked.append(words))
    monkeypatch.setattr(images, "open_input", lambda *words: asked.append(words))
    for what, data in other_files(tmp_path).items():
        source = tmp_path / "plate.1001.exr"
        source.write_bytes(data)
        said = answer(DecodeTask(source, tmp_path / "out", name="plate", frame=1001))
        assert said["error"]["code"] == "bad-picture"
        assert said["error"]["message"] == f"Input 'plate' frame 1001 is no EXR: it is {what}."
    assert asked == []


# --- F08 -----------------------------------------------------------------------------------------


@pytest.mark.fault("F08")
def test_every_kind_of_odd_sample_is_kept_and_those_not_finite_are_counted(ask, handmade):
    bits = [0x7E00, 0xFE01, 0x7C00, 0xFC00, 0x0001, 0x8001, 0xC000, 0x7BFF, 0xFBFF, 0x3C00]
    line = np.array([bits], np.uint16).view(np.float16)
    said, _ = ask(handmade.exr(dict.fromkeys("RGB", line)))
    assert (said.stats.nan, said.stats.inf, said.header.nan_count) == (6, 6, 12)
    assert (said.stats.minimum, said.stats.maximum) == (-65504.0, 65504.0)


# --- F11 -----------------------------------------------------------------------------------------


@pytest.mark.fault("F11")
@pytest.mark.parametrize("odd", [b"\xff\xfe", b"\xed\xa0\x80", b"\x1b[2J", b"a\nb", b"\x80"])
def test_names_that_are_no_text_do_not_stop_a_refusal(ask, handmade, odd):
    line = np.ones((2, 2), np.float16)
    mark = b"zz" + b"y" * (len(odd) - 2) if len(odd) > 1 else b"z"
    data = handmade.exr({mark.decode(): line, "Q": line})
    data = data.replace(mark + b"\0\1\0\0\0", odd + b"\0\1\0\0\0")
    assert odd in data
    said, _ = ask(data)
    assert isinstance(said, BadPicture)
    assert "has no R, G and B channels but Q" in said.message
    # It reaches a client as it is, and a terminal does what it is told by nobody.
    (back,) = [from_wire(to_wire(Refusal(1, said))).error]
    assert back.message == said.message
    assert said.message.isprintable()


@pytest.mark.fault("F11")
@pytest.mark.parametrize("odd", [b"\xff\xfe", b"\xed\xa0\x80", b"\x80"])
def test_an_attribute_whose_name_or_text_is_no_text_is_left_out(ask, handmade, odd):
    line = np.ones((2, 2), np.float16)
    extra = handmade.attribute("about", "string", odd) + handmade.attribute("reel", "string", b"A1")
    extra += handmade.attribute("zzz", "string", b"b").replace(b"zzz", odd[:3].ljust(3, b"x"))
    said, _ = ask(handmade.exr(dict.fromkeys("RGB", line), extra=extra))
    assert dict(said.header.metadata) == {"reel": "A1"}


@pytest.mark.fault("F11")
def test_words_of_the_library_that_are_no_text_make_no_second_error(tmp_path, handmade):
    class Broken:
        def geterror(self):
            return b"channel \xff\xfe\n is bad".decode("utf-8")

    error = pixels.damaged("Input 'plate' frame 1001", Broken())
    assert error.details["library"] == "channel \\xff\\xfe is bad"
    assert str(error).startswith("Input 'plate' frame 1001 cannot be read.")


# --- what is not there to be read ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["exr", "image"])
def test_a_folder_and_a_file_that_nobody_may_read_are_refused(pool, tmp_path, kind):
    (tmp_path / "folder").mkdir()
    for source in (tmp_path / "folder", tmp_path / "nothing"):
        error = pool.submit(DecodeTask(source, tmp_path / "out", kind, name="plate")).exception()
        assert isinstance(error, BadPicture)
        assert error.message.startswith("Input 'plate' ")
        assert "decoder died" not in error.message


def test_the_chunks_of_every_level_of_a_tiled_file_are_known(tmp_path):
    data = write(tmp_path / "tiled.exr", noise(70, 50), tile=16)
    (tmp_path / "cut.exr").write_bytes(data[:-1])
    (part,) = parse_exr(tmp_path / "tiled.exr", "it")
    assert part.chunk_count == 5 * 4
    assert choose_colour((part,), "it") == (0, ("R", "G", "B"))
    with pytest.raises(BadPicture, match="ends before its picture does"):
        parse_exr(tmp_path / "cut.exr", "it")
