# SPDX-License-Identifier: Apache-2.0
"""Sentences as a panel shows them, since Nuke's text knob breaks no line by itself.

Imports nothing of ours, so that a broken installation can be told too.
"""

import textwrap

_WIDTH = 90


def wrapped(sentence: str) -> str:
    """Break a sentence into lines between its words; a path stays whole, so that it can be copied.

    Args:
        sentence: What the node says, on one line.
    """
    return textwrap.fill(sentence, _WIDTH, break_long_words=False, break_on_hyphens=False)
