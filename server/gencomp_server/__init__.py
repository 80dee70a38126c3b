# SPDX-License-Identifier: Apache-2.0
"""The server room: everything that runs where the pictures are computed."""

import sys

if sys.version_info < (3, 10):
    raise ImportError("gencomp's server needs Python 3.10 or newer.")
