# SPDX-License-Identifier: Apache-2.0
"""A job whose pictures lie on shared storage: they do not travel, or do, and it is said."""

from dataclasses import replace

import pytest

from gencomp_protocol import sockets
from gencomp_protocol.client import Client, Sent, Warned, request_key
from gencomp_protocol.errors import BadKnob
from gencomp_protocol.keys import ClientKeys
from gencomp_server.keys import KeyFolder


@pytest.mark.fault("F12")
def test_what_lies_on_shared_storage_does_not_travel(running, shot, tmp_path, exr):
    server = running(shared_roots=(str(shot.folder),))
    with server.client() as client:
        outcome, events, _ = shot.run(client, tmp_path / "out")
        counts = client.health()["counts"]
    assert outcome.state == "done"
    assert [one for one in events if isinstance(one, (Sent, Warned))] == []
    assert counts["shared_pictures"] == 3
    read = exr[1]
    for n in (1001, 1002, 1003):
        made = read(tmp_path / "out" / "copy" / f"copy.{n:04d}.exr")
        assert (made == read(shot.files["plate"][n])).all()


def link(folder, _):
    path = folder / "odd.exr"
    path.symlink_to(folder / "plate.1002.exr")
    return path


def absent(folder, _):
    return folder / "nowhere.exr"


def longer(folder, size):
    path = folder / "odd.exr"
    path.write_bytes(bytes(size + 1))
    return path


def another(folder, size):
    path = folder / "odd.exr"
    path.write_bytes(bytes(size))
    return path


@pytest.mark.fault("F12")
@pytest.mark.parametrize("odd", [link, absent, longer, another])
def test_what_is_odd_about_a_path_is_not_said_but_that_the_picture_travels(
    running, shot, odd, monkeypatch, tmp_path
):
    true = Client._entry

    def entry(client, frame, picture):
        told = true(client, frame, picture)
        if frame != 1002:
            return told
        return replace(told, path=str(odd(shot.folder, picture.bytes)))

    monkeypatch.setattr(Client, "_entry", entry)
    server = running(shared_roots=(str(shot.folder),))
    with server.client() as client:
        outcome, events, job = shot.run(client, tmp_path / "out")
        assert "from shared storage:" not in str(client.report(job))
    assert outcome.state == "done"
    assert [one.frame for one in events if isinstance(one, Sent)] == [1002]
    assert [one.sentence for one in events if isinstance(one, Warned)] == [
        "'plate' frame 1002 is not read from shared storage; it is sent instead."
    ]


@pytest.mark.fault("F12")
def test_a_server_that_shares_nothing_is_told_no_path_and_opens_none(running, shot, tmp_path):
    server = running()
    with server.client() as client:
        _, events, job = shot.run(client, tmp_path / "out")
    assert [one.frame for one in events if isinstance(one, Sent)] == [1001, 1002, 1003]
    database = b"".join(path.read_bytes() for path in server.config.spool.glob("gencomp.db*"))
    assert job.encode() in database
    assert str(shot.folder).encode() not in database


@pytest.mark.fault("F12")
def test_no_colour_config_of_a_client_from_elsewhere_is_opened_by_its_path(running, shot, tmp_path):
    folder = KeyFolder(tmp_path / "keys")
    server_key = folder.make_server_key()
    keys = ClientKeys(server_key, *sockets.new_pair(), "ada")
    folder.allow("ada", keys.public)
    server = running(host="0.0.0.0", keys=folder.folder, ocio_configs=(str(tmp_path / "ok.ocio"),))
    address = server.here.public.replace("0.0.0.0", "127.0.0.1")
    pictures = shot.pictures()
    with Client(address, "", keys=keys) as client, server.client() as local:
        client.connect()
        for ocio in (str(tmp_path / "x.ocio"), "/etc/passwd", "../x", f"{tmp_path}/./ok.ocio"):
            request = _with_ocio(shot, ocio)
            with pytest.raises(BadKnob, match="opens no OpenColorIO config"):
                client.check(request)
            with pytest.raises(BadKnob, match="opens no OpenColorIO config"):
                client.submit(request, pictures, request_key(request, pictures))
        # The one that is listed, and this machine's own user, are heard; these are not there.
        for one, ocio in ((client, tmp_path / "ok.ocio"), (local, tmp_path / "x.ocio")):
            with pytest.raises(BadKnob) as raised:
                one.check(_with_ocio(shot, str(ocio)))
            assert "opens no" not in raised.value.message


def _with_ocio(shot, ocio):
    return replace(shot.request(), ocio=ocio)
