#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make a virtual environment with everything in it: tools/set_up.sh FOLDER [TORCH_INDEX]
#
# FOLDER       where the environment goes; made if need be.
# TORCH_INDEX  package index to take torch from; empty takes it from where everything comes from.
set -eu

folder=$1
torch_index=${2:-}

# Says what an interpreter lacks, one sentence each; silent where it lacks nothing.
lacks() {
    "$1" - <<'PYTHON' 2>/dev/null || echo "$1 does not run."
import importlib.util, sys
if sys.version_info[:2] != (3, 11):
    print("%s is Python %d.%d, not 3.11." % ((sys.executable,) + sys.version_info[:2]))
if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
    print("%s has no venv: install it (Debian: python3-venv)." % sys.executable)
if not importlib.util.find_spec("_tkinter"):
    print("%s has no tk: install it (Debian: python3-tk)." % sys.executable)
PYTHON
}

python=
for name in ${PYTHON:-python3.11 /usr/bin/python3.11 python3}; do
    command -v "$name" >/dev/null 2>&1 || continue
    if [ -z "$(lacks "$name")" ]; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    echo "gencomp needs Python 3.11 with venv and tk (Debian: python3-venv python3-tk)." >&2
    for name in ${PYTHON:-python3.11 python3}; do
        command -v "$name" >/dev/null 2>&1 && lacks "$name" >&2
    done
    exit 1
fi

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
pip="$folder/bin/python -m pip --disable-pip-version-check install --quiet --quiet"
torch=$(grep '^torch==' constraints.txt)
echo "Installing into $folder: about 1.5 GB, a minute or two ..."
if [ -n "$torch_index" ]; then
    $pip --no-deps --index-url "$torch_index" "$torch"
fi
$pip -c constraints.txt -e '.[server,dev,docs]'

cuda=$("$folder/bin/python" -c 'import torch; print(torch.version.cuda or "")')
if [ -n "$cuda" ] && ! command -v nvidia-smi >/dev/null 2>&1; then
    echo "Warning: torch came as its CUDA $cuda build, which takes several GB more and is of no use" \
        "without a GPU; 'make clean' and 'make setup TORCH_INDEX=URL' with an index of CPU builds" \
        "gives the small one." >&2
fi
