# SPDX-License-Identifier: Apache-2.0
"""Folders of models that ask for code of their own, or for kernels of a hub: neither is had.

Each is opened in a process that may not call the network (an audit hook ends it where it tries),
with the variables that would keep the libraries offline taken away first.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.models.test_clip import write_clip

ROOT = Path(__file__).parents[3]
CALLED = 77  # Exit code where the network was called.
PROGRAM = """
import os, sys
from pathlib import Path

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        sys.stderr.write(f"{event} {arguments[1:]}")
        sys.stderr.flush()
        os._exit(77)

sys.addaudithook(watch)
from gencomp_protocol.errors import GencompError
folder = Path(sys.argv[2])
try:
    if sys.argv[1] == "tokenizer":
        from gencomp_server.models.text import load_tokenizer
        load_tokenizer(folder)
    elif sys.argv[1] == "encoder":
        from gencomp_server.models.text import load_encoder
        load_encoder(folder, title="x", device="cpu", dtype=None, width=8)
    elif sys.argv[1] == "clip":
        from gencomp_server.models.clip import load_clip
        load_clip(folder).prompt("smoke")
    else:
        import urllib.request
        urllib.request.urlopen("http://127.0.0.1:9")
except GencompError as error:
    print(error.code, error.message)
else:
    print("taken")
"""
EVIL = "import pathlib; pathlib.Path(__file__).with_name('sprung').touch()\nclass Evil: pass\n"

pytestmark = pytest.mark.fault("F18")


def opened(kind, folder):
    """Open a folder in a process without a network; return exit code and what was said."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TR"))}
    roots = os.pathsep.join(str(ROOT / name) for name in ("protocol", "server"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, str(folder)],
        env={**keep, "PYTHONPATH": roots, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.strip(), done.stderr


def plant(folder, **configs):
    """Write configs that ask for ``evil.py``, and that file, which leaves a trace when run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evil.py").write_text(EVIL)
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))


def test_the_hook_ends_whoever_calls_the_network(tmp_path):
    assert opened("nothing", tmp_path)[0] == CALLED


@pytest.mark.parametrize("where", ["evil.Evil", "somebody/evil--evil.Evil"])
@pytest.mark.slow
def test_a_tokenizer_of_its_own_code_is_refused_and_nothing_is_fetched(tmp_path, where):
    mapped = {"AutoTokenizer": [where, None]}
    plant(
        tmp_path / "model",
        tokenizer_config={"tokenizer_class": "Evil", "auto_map": mapped},
        config={"model_type": "evil", "auto_map": {"AutoConfig": where}},
    )
    code, said, err = opened("tokenizer", tmp_path / "model")
    assert code == 0, err
    assert said.startswith("weights-refused")
    assert list(tmp_path.rglob("sprung")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "asks",
    [
        {"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "somebody/evil--evil.Evil"}},
        {"attn_implementation": "kernels-community/flash-attn3"},
        {"_attn_implementation": "kernels-community/flash-attn3"},
        {"vision_config": {"_attn_implementation": "kernels-community/flash-attn3"}},
        {"use_kernels": True},
    ],
    ids=["remote code", "a kernel", "a kernel in private", "a kernel of a part", "any kernels"],
)
def test_a_clip_that_asks_for_code_or_kernels_gets_neither(tmp_path, asks):
    folder = tmp_path / "clip"
    folder.mkdir()
    write_clip(folder)
    config = json.loads((folder / "config.json").read_text())
    plant(folder, config={**config, **asks})
    code, said, err = opened("clip", folder)
    assert code == 0, err
    assert said.startswith("weights-refused") or (said == "taken" and "auto_map" in asks)
    assert list(tmp_path.rglob("sprung")) == []


@pytest.mark.slow
def test_a_text_encoder_that_asks_for_code_or_kernels_gets_neither(tmp_path):
    asks = {"auto_map": {"AutoModel": "evil.Evil"}, "_attn_implementation": "somebody/kernel"}
    plant(tmp_path / "encoder", config={"d_model": 8, "num_layers": 1, **asks})
    code, said, err = opened("encoder", tmp_path / "encoder")
    assert code == 0, err
    assert said.startswith("weights-refused")
    assert "asks for kernels of a hub (_attn_implementation: somebody/kernel)" in said
    assert list(tmp_path.rglob("sprung")) == []
