# SPDX-License-Identifier: Apache-2.0
"""``python -m gencomp_server`` is the ``gencomp`` command."""

import sys

from gencomp_server.cli import main

if __name__ == "__main__":
    sys.exit(main())
