# SPDX-License-Identifier: Apache-2.0
"""What every test shares; imports nothing that Nuke's own Python does not have."""

import pytest

from faults.figures import measured

__all__ = ["measured"]


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    """Give every test a home folder of its own, and no server or colour of the user's."""
    monkeypatch.setenv("GENCOMP_HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("GENCOMP_SERVER", "GENCOMP_SECRET_FILE", "OCIO"):
        monkeypatch.delenv(name, raising=False)
