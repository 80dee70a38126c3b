#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install this bundle's server without the network, beside the versions that are there:
#
#   sh install.sh /opt/gencomp                 # /opt/gencomp/VERSION, and current -> VERSION
#   sh install.sh /opt/gencomp --keep-current  # install only; switch later
#   sh install.sh /opt/gencomp --switch 0.1.0  # current -> 0.1.0, which is installed already
#
# PYTHON names the interpreter (python3.11). Every wheel is checked against its hash. A version
# appears under its name when it is whole; what fails leaves nothing behind.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
say() { echo "gencomp: $*" >&2; }
if [ $# -lt 1 ]; then
    say "say where to install: sh install.sh /opt/gencomp"
    exit 2
fi
prefix=$1
shift
version=$(cat "$here/VERSION")
switch=yes
only=no
while [ $# -gt 0 ]; do
    case $1 in
    --keep-current) switch=no ;;
    --switch)
        if [ $# -lt 2 ]; then say "--switch needs a version"; exit 2; fi
        version=$2
        only=yes
        shift
        ;;
    *) say "there is no option $1"; exit 2 ;;
    esac
    shift
done

point() {
    if [ ! -x "$prefix/$version/bin/gencomp" ]; then
        say "version $version is not installed in $prefix; there are: $(cd "$prefix" 2>/dev/null && ls | grep -v '^current$' | tr '\n' ' ')"
        exit 1
    fi
    ln -s "$version" "$prefix/.current.$$"
    mv -T "$prefix/.current.$$" "$prefix/current" # One rename: no moment without a version.
    echo "$prefix/current is $version"
}

if [ $only = yes ]; then
    point
    exit 0
fi

python=${PYTHON:-python3.11}
wanted=$(cat "$here/PYTHON")
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none)
if [ "$found" != "$wanted" ]; then
    say "this bundle is for Python $wanted; $python is $found. Name another: PYTHON=/path/python$wanted sh install.sh $prefix"
    exit 1
fi
if [ -e "$prefix/$version" ]; then
    say "version $version is in $prefix already; remove $prefix/$version first to install it anew"
    exit 1
fi
mkdir -p "$prefix"
# A virtual environment holds its own path, so it is made in its place, behind a mark.
mark="$prefix/.$version.unfinished"
trap 'if [ -e "$mark" ]; then rm -rf "$prefix/$version" "$mark"; say "not installed; nothing is left behind"; fi' EXIT
trap 'exit 130' INT TERM
: >"$mark"
"$python" -m venv "$prefix/$version"
"$prefix/$version/bin/python" -m pip --disable-pip-version-check --no-input install --quiet \
    --no-index --find-links "$here/wheels" --require-hashes --no-deps -r "$here/requirements.txt"
"$prefix/$version/bin/gencomp" --version
cp "$here/sbom.cdx.json" "$prefix/$version/"
rm -f "$mark"
if [ $switch = yes ]; then point; fi
