# SPDX-License-Identifier: Apache-2.0
"""Lines of Tcl: words quoted, knobs added, nodes made; and the template's lines by knob."""

import re
from pathlib import Path

_KNOB = re.compile(r" addUserKnob \{(\d+) (\w+)")
_BUTTON = re.compile(r" T @(\w+)")
_OF_THEIR_OWN = ("generate", "cancel", "reveal")
"""Buttons with a function of their own in ``callbacks``; every other one is pressed by its name."""
_PRESSED = (
    "try:\\n    from gencomp_nuke import callbacks\\nexcept ImportError:\\n"
    "    text = 'The Python side of gencomp is not installed in this Nuke: "
    "see docs/artist/install-nuke.md.'\\n"
    "    nuke.message(text) if nuke.GUI else nuke.tprint(text)\\nelse:\\n    callbacks."
)


def quoted(text: str) -> str:
    """Return a text as one word of Tcl that its list parser gives back unchanged."""
    if re.fullmatch(r"[A-Za-z0-9_.+-]+", text):
        return text
    return '"' + re.sub(r'([\\"\[\]{}$])', r"\\\1", text).replace("\n", "\\n") + '"'


def user_knob(code: int, name: str, *, label: str = "", tip: str = "", more: str = "") -> str:
    """Return the line that adds a knob."""
    words = [f"{code} {name}"]
    words += [f"l {quoted(label)}"] if label else []
    words += [f"t {quoted(tip)}"] if tip else []
    return f" addUserKnob {{{' '.join([*words, *([more] if more else [])])}}}"


def node_lines(cls: str, x: int, y: int, name: str, *knobs: str) -> list[str]:
    """Return one inner node."""
    return [
        f" {cls} {{",
        *(f"  {knob}" for knob in knobs),
        f"  name {name}",
        f"  xpos {x}",
        f"  ypos {y}",
        " }",
    ]


class Example:
    """A panel's lines by knob, and those before the first: of the template, or of a gizmo.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.lines: dict[str, list[str]] = {}
        self.head: list[str] = []
        found = self.head
        for line in path.read_text(encoding="utf-8").splitlines():
            match = _KNOB.match(line)
            if match:
                found = self.lines.setdefault(match.group(2), [])
            elif line.startswith("}"):
                break
            if not line.startswith("#"):
                found.append(_BUTTON.sub(_script, line))

    def knobs(self, *names: str) -> list[str]:
        """Return the lines of knobs, as they are."""
        return [line for name in names for line in self.lines[name]]

    def filled(self, name: str, **words: str) -> list[str]:
        """Return the lines of a knob with words in capitals filled in."""
        lines = self.knobs(name)
        for word, value in words.items():
            lines = [line.replace(word, quoted(value).strip('"')) for line in lines]
        return lines

    def between(self, first: str, last: str) -> list[str]:
        """Return the lines from one knob up to, and without, another."""
        names = list(self.lines)
        return self.knobs(*names[names.index(first) : names.index(last)])


def _script(match: "re.Match[str]") -> str:
    """Return a button's script: it tells where the Python side is missing."""
    name = match.group(1)
    call = f"{name}(nuke.thisNode())"
    if name not in _OF_THEIR_OWN:
        call = f"press(nuke.thisNode(), '{name}')"
    return f' T "{_PRESSED}{call}"'
