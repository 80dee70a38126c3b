# SPDX-License-Identifier: Apache-2.0
"""The public names of the ground floor."""

import subprocess
import sys
import types

import gencomp_protocol


def test_every_public_name_is_exported_and_no_other():
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


def test_the_protocol_has_a_version_of_its_own():
    assert gencomp_protocol.PROTOCOL_VERSION == (1, 2)
