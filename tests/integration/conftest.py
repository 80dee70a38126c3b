# SPDX-License-Identifier: Apache-2.0
"""What the integration tests are given: a shot of three frames and the command."""

import os

import pytest

from command_line import (
    FRAMES,
    Ended,
    Shot,
    environment,
    finish,
    matte_of,
    plate_of,
    start,
    write_picture,
)
from gencomp_server.cli import main
from gencomp_server.embedded import EmbeddedServer


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


@pytest.fixture(scope="module")
def carrying_server(tmp_path_factory):
    """Return the address of a server of ``carrying_systems`` and the file with its secret."""
    spool = tmp_path_factory.mktemp("server") / "spool"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment("carrying_systems:REGISTRY").items():
            patch.setenv(name, value)
        server = EmbeddedServer(spool)
        address = server.__enter__().address
    yield address, spool / "server.json"
    server.__exit__(None, None, None)


@pytest.fixture
def carry(carrying_server, tmp_path, capsys, monkeypatch):
    """Return a function that runs the job on the plates written; it gives how that ended."""
    address, secret = carrying_server
    monkeypatch.setenv("GENCOMP_SECRET_FILE", os.fspath(secret))

    def command(*words, plate="plate.%04d.exr"):
        capsys.readouterr()
        code = main(
            [
                *("run", "carry", "--server", address, "--out", f"{tmp_path}/out", "--json"),
                *("--input", f"plate={tmp_path}/plate/{plate}", *words),
            ]
        )
        return Ended(code, *capsys.readouterr())

    command.plate = lambda frame: tmp_path / "plate" / f"plate.{frame}.exr"
    command.file = lambda layer, frame: tmp_path / "out" / layer / f"{layer}.{frame}.exr"
    return command
