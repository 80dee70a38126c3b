# SPDX-License-Identifier: Apache-2.0
"""The public names of the ground floor."""

import subprocess
import sys
import types

import pytest

import gencomp_protocol


def test_every_public_name_is_exported_and_no_other():
    for name in gencomp_protocol.__all__:  # They are imported as they are asked for.
        getattr(gencomp_protocol, name)
    public = {
        name
        for name, value in vars(gencomp_protocol).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public | {"__version__"} == set(gencomp_protocol.__all__)


def test_every_export_is_there_once():
    assert len(set(gencomp_protocol.__all__)) == len(gencomp_protocol.__all__)
    assert all(hasattr(gencomp_protocol, name) for name in gencomp_protocol.__all__)


def test_importing_it_brings_no_numpy_and_no_torch():
    code = (
        "import sys, gencomp_protocol\n"
        "sys.exit(', '.join({'numpy', 'torch', 'cv2', 'nuke'} & set(sys.modules)) or 0)"
    )
    path = gencomp_protocol.__file__.rsplit("/", 2)[0]
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_without_a_client_zeromq_is_not_loaded():
    code = "import sys, gencomp_protocol; sys.exit('zmq' in sys.modules)"
    path = gencomp_protocol.__file__.rsplit("/", 2)[0]
    words = [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r})\n{code}"]
    assert subprocess.run(words, check=False).returncode == 0


def test_a_name_that_there_is_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Clint'"):
        _ = gencomp_protocol.Clint


def test_the_protocol_has_a_version_of_its_own():
    assert gencomp_protocol.PROTOCOL_VERSION == (1, 2)
