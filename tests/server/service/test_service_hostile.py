# SPDX-License-Identifier: Apache-2.0
"""Pictures that are cut, changed on the way or on the disk, as a whole server meets them."""

from dataclasses import replace

import numpy as np
import OpenImageIO as oiio
import pytest

from gencomp_protocol import following
from gencomp_protocol.errors import BadMatte, BadPicture
from gencomp_protocol.events import Warned
from gencomp_protocol.messages import DONE, REFUSED
from gencomp_protocol.transfer import picture_of
from gencomp_server.engine.spool import Spool
from gencomp_server.exr.header import parse_exr

from .conftest import ramp, write_exr


def said(events):
    """Return the sentences that a follower was told."""
    return [event.sentence for event in events if isinstance(event, Warned)]


@pytest.mark.fault("F01")
@pytest.mark.parametrize("kept", [0.5, -64])
def test_a_truncated_frame_refuses_its_job_and_no_other(server, client, shot, make_shot, kept):
    path = shot.files["plate"][1002]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if kept > 0 else kept])
    outcome, events, job = shot.run(client)
    assert (outcome.state, type(outcome.error)) == (REFUSED, BadPicture)
    assert outcome.error.message == "Input 'plate' frame 1002 ends before its picture does."
    assert outcome.error.details["frame"] == 1002
    assert not any(getattr(event, "state", "") == "queued" for event in events)
    spool = Spool(server.config.spool)
    assert not spool.job(job).exists()
    assert not list(spool.decoded.glob(f"*{picture_of(path).digest}*"))
    outcome, _, _ = make_shot("good").run(client)
    assert outcome.state == DONE


@pytest.mark.fault("F03")
def test_a_byte_flipped_on_the_way_is_reported_and_fetched_again(
    client, shot, exr, tmp_path, monkeypatch
):
    sent, real = [], following.read_stretch

    def flipping(path, size, want):
        chunk = real(path, size, want)
        sent.append((want.name, want.frame, want.offset))
        if sent.count(sent[-1]) == 1 and want.frame == 1002:
            body = bytearray(chunk.body)
            body[len(body) // 2] ^= 1
            return replace(chunk, body=bytes(body))
        return chunk

    monkeypatch.setattr(following, "read_stretch", flipping)
    outcome, events, _ = shot.run(client, tmp_path / "out")
    assert outcome.state == DONE
    assert said(events) == [
        "Input 'plate' frame 1002 arrived with the wrong digest; it is fetched once more."
    ]
    assert sent.count(("plate", 1002, 0)) == 2
    assert sent.count(("plate", 1001, 0)) == 1
    _, read = exr
    for n, path in shot.files["plate"].items():
        made = read(tmp_path / "out" / "copy" / f"copy.{n}.exr")
        assert (made.view(np.uint16) == read(path).view(np.uint16)).all()


@pytest.mark.fault("F03")
@pytest.mark.parametrize("compression", ["none", "piz"])
def test_a_byte_flipped_on_the_servers_disk_is_reported_and_fetched_again(
    server, client, make_shot, exr, tmp_path, compression
):
    shot, (write, read) = make_shot("in"), exr
    for path in shot.files["plate"].values():
        write(path, read(path), compression=compression)
    path = shot.files["plate"][1002]
    # The server has the picture from before, and since then its disk has lost a bit of it.
    spoilt = Spool(server.config.spool).picture(picture_of(path).digest)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    spoilt.write_bytes(bytes(data))
    outcome, events, _ = shot.run(client, tmp_path / "out")
    assert outcome.state == DONE
    assert said(events) == [
        "Input 'plate' frame 1002 changed on the server's disk after it arrived; "
        "it is fetched once more."
    ]
    assert spoilt.read_bytes() == path.read_bytes()
    for n, source in shot.files["plate"].items():
        made = read(tmp_path / "out" / "copy" / f"copy.{n}.exr")
        assert (made.view(np.uint16) == read(source).view(np.uint16)).all()


@pytest.mark.fault("F08")
def test_samples_that_are_not_finite_are_counted_in_the_manifest(client, make_shot, exr):
    shot, (write, read) = make_shot("in"), exr
    pixels = read(shot.files["plate"][1002])
    pixels[0, :5, 0], pixels[1, 0, 1] = np.nan, -np.inf
    write(shot.files["plate"][1002], pixels)
    outcome, events, _ = shot.run(client)
    sentence = (
        "Input 'plate' frame 1002 has 6 bad samples (NaN or infinite); "
        "they are left out of the computation."
    )
    assert outcome.state == DONE
    assert sentence in said(events)
    assert sentence in outcome.manifest["warnings"]


@pytest.mark.fault("F08")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_matte_that_is_not_finite_is_refused_with_its_count(client, shot, bad):
    shot.add_matte([1.0, bad, 1.0])
    outcome, _, _ = shot.run(client)
    assert (outcome.state, type(outcome.error)) == (REFUSED, BadMatte)
    assert "Input 'matte.a' frame 1002 has 288 bad samples" in outcome.error.message


@pytest.mark.fault("F10")
def test_a_matte_of_nothing_is_refused_and_one_of_everything_says_so(client, make_shot):
    outcome, _, _ = make_shot("empty").add_matte([0.0, 0.0, 0.0]).run(client)
    assert (outcome.state, type(outcome.error)) == (REFUSED, BadMatte)
    full = make_shot("full").add_matte([1.0, 1.0, 1.0])
    pixels = np.ones((18, 32, 1), np.float16)
    for path in full.files["matte.a"].values():
        write_exr(path, pixels, ("A",))
    outcome, events, _ = full.run(client)
    assert outcome.state == DONE
    (sentence,) = said(events)
    assert "'matte.a' covers the whole picture on every frame" in sentence
    assert sentence in outcome.manifest["warnings"]


@pytest.mark.fault("F05")
@pytest.mark.parametrize(
    ("data", "display"),
    [
        ((-5000, -4000), (0, 0, 1919, 1079)),
        ((5000, 4000), (0, 0, 1919, 1079)),
        ((-6, -3), (0, 0, 19, 11)),
        ((90, 40), (100, 50, 119, 61)),
    ],
)
def test_odd_windows_come_back_in_the_layer_exactly(client, make_shot, tmp_path, data, display):
    shot = make_shot("in")
    x0, y0, x1, y1 = display
    for n, path in shot.files["plate"].items():
        spec = oiio.ImageSpec(32, 18, 3, "half")
        spec.x, spec.y = data
        spec.full_x, spec.full_y = x0, y0
        spec.full_width, spec.full_height = x1 - x0 + 1, y1 - y0 + 1
        target = oiio.ImageOutput.create(str(path))
        assert target.open(str(path), spec), target.geterror()
        assert target.write_image(ramp(n))
        target.close()
    outcome, _, _ = shot.run(client, tmp_path / "out")
    assert outcome.state == DONE
    for n in shot.files["plate"]:
        (part,) = parse_exr(tmp_path / "out" / "copy" / f"copy.{n}.exr", "it")
        box = part.data_window
        assert (box.x0, box.y0, box.width, box.height) == (*data, 32, 18)
        box = part.display_window
        assert (box.x0, box.y0, box.x1, box.y1) == display
