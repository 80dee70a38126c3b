# SPDX-License-Identifier: Apache-2.0
"""Fuzz what reads pictures: the header by hand, and the whole way through the decoder.

``python tools/fuzz_pictures.py [FOLDER] [-max_total_time=60]`` (libFuzzer's options) begins with
good files of every compression and with bombs. A crash, a hang, more than 2 GiB of memory, and
anything but a picture or a sentence are findings. Needs Atheris: ``pip install '.[fuzz]'``.
"""

import sys
import tempfile
from pathlib import Path

import atheris
from fuzzing import fuzz

with atheris.instrument_imports(include=["gencomp_server.exr"]):
    from gencomp_server.exr.decode import EXR, IMAGE, DecodeTask
    from gencomp_server.exr.decoder import answer
    from gencomp_server.exr.header import LIMITS
    from gencomp_server.exr.layout import EXR_MAGIC
    from gencomp_server.exr.pixels import limit_library

ROOT = Path(__file__).resolve().parents[1]
_ROLES = ("rgb", "matte", "data", "rest", "look")


class Reader:
    """Has bytes decoded in a folder of its own.

    Args:
        folder: Where the files go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        limit_library(LIMITS)

    def read(self, data: bytes) -> None:
        """Have bytes read in the role that the last of them names."""
        role = _ROLES[data[-1] % len(_ROLES)] if data else "rgb"
        source, target = self._folder / "picture", self._folder / "out"
        source.write_bytes(data)
        kind = EXR if data.startswith(EXR_MAGIC[:2]) or role in ("rest", "look") else IMAGE
        said = answer(DecodeTask(source, target, kind, role, name="plate", frame=1))
        if "error" not in said:
            target.with_name("out.raw").unlink(missing_ok=True)
            target.with_name("out.json").unlink(missing_ok=True)
            return
        if not said["error"]["message"].startswith(("Input 'plate' frame 1", "plate")):
            raise AssertionError(f"no sentence: {said['error']}")
        left = [path.name for path in self._folder.iterdir() if path != source]
        if left:
            raise AssertionError(f"left behind: {left}")


def seeds() -> list[bytes]:
    """Return good files of every compression taken, and the bombs that are small."""
    import numpy as np
    import OpenEXR

    sys.path.insert(0, str(ROOT / "tests"))
    from hostile import BOMBS

    packed = {
        *(OpenEXR.NO_COMPRESSION, OpenEXR.RLE_COMPRESSION, OpenEXR.ZIPS_COMPRESSION),
        *(OpenEXR.ZIP_COMPRESSION, OpenEXR.PIZ_COMPRESSION, OpenEXR.DWAA_COMPRESSION),
    }
    plane = np.linspace(0, 1, 20 * 12, dtype=np.float32).astype(np.float16).reshape(20, 12)
    found = [data for data in BOMBS.values() if len(data) < 4096]
    with tempfile.TemporaryDirectory() as folder:
        for compression in sorted(packed, key=str):
            path = Path(folder, "seed.exr")
            header = {"compression": compression, "type": OpenEXR.scanlineimage}
            channels = {name: OpenEXR.Channel(plane) for name in ("R", "G", "B", "A", "Z")}
            OpenEXR.File(header, channels).write(str(path))
            found.append(path.read_bytes())
    return found


def main() -> None:
    """Fuzz until something breaks or the time is up."""
    with tempfile.TemporaryDirectory(prefix="gencomp-fuzz-") as scratch:
        fuzz(Reader(Path(scratch)).read, seeds, "good")


if __name__ == "__main__":
    main()
