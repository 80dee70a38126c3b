# SPDX-License-Identifier: Apache-2.0
"""The graph: nodes, building them from a script, writing them again."""

from standin import classes
from standin.builder import Builder, build, check_links, load
from standin.dump import dump, dump_script, fingerprint, fingerprint_script
from standin.formats import Format, FrameRange
from standin.node import Node
from standin.tclscript import pairs, quote

__all__ = [
    "Builder",
    "Format",
    "FrameRange",
    "Node",
    "build",
    "check_links",
    "classes",
    "dump",
    "dump_script",
    "fingerprint",
    "fingerprint_script",
    "load",
    "pairs",
    "quote",
]
