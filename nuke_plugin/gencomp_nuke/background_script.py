# SPDX-License-Identifier: Apache-2.0
"""What the background Nuke runs: ``nuke -t background_script.py PLAN``.

Opens the script that the plan names, switches the Writes inside one node on and lets them render,
raw and at full resolution. Saves nothing; needs nothing of ours, since the node is in the script.
Ends with code 1 and Nuke's own words where that fails.
"""

import json
import sys
from pathlib import Path

import nuke


def main(plan_file: str) -> int:
    """Render what a plan says; return the exit code."""
    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    try:
        nuke.scriptOpen(plan["script"])
        nuke.root()["proxy"].setValue(False)
        if hasattr(nuke, "localization"):  # A local copy may be older than its original.
            nuke.localization.setMode("off")
        node = nuke.root().node(plan["node"])
        node["gc_export"].setValue(plan["folder"])
        node["gc_rendering"].setValue(True)
        for writer, runs in plan["writers"].items():
            for first, last, step in runs:
                nuke.execute(node.node(writer), first, last, step, [plan["view"]])
    except RuntimeError as error:
        nuke.tprint(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
