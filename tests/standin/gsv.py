# SPDX-License-Identifier: Apache-2.0
"""Graph scope variables of Nuke 16: sets of names and texts on the root and on some groups.

``%{shot}`` in a text is the variable ``shot`` of the default set, ``%{plates.name}`` that of
another; the nearest group outwards that has it decides. How a script of Nuke's spells them is not
known here: a text that is not of our own making is kept as it is, and holds nothing.
"""

import re

from standin import knobs
from standin.tclscript import quote, split

DEFAULT = "__default__"
_NAMED = re.compile(r"%\{([A-Za-z_][\w.]*)\}")


class Gsv_Knob(knobs.Knob):
    """The variables of one group."""

    def value(self, *_):
        return _read(self._raw)

    getValue = value

    def setValue(self, sets, *_):
        self._set_raw(_spell(sets))

    def addGsvSet(self, name):
        self.setValue({**self.value(), name: self.value().get(name, {})})
        return True

    def setGsvValue(self, path, value):
        sets, (group, name) = self.value(), _parts(path)
        sets.setdefault(group, {})[name] = str(value)
        self.setValue(sets)

    def getGsvValue(self, path):
        found = _look_up(self._node, path)
        if found is None:
            raise ValueError(f"there is no variable {path}")
        return found

    def contains(self, path):
        return _look_up(self._node, path) is not None


knobs._MADE["Gsv_Knob"] = Gsv_Knob


def filled(text, node):
    """Return a text with the variables in it as they are at a node; unknown ones stay."""

    def value(match):
        found = _look_up(node, match.group(1))
        return match.group(0) if found is None else found

    return _NAMED.sub(value, text) if "%{" in text else text


def _look_up(node, path):
    group, name = _parts(path)
    while node is not None:
        if "gsv" in node._knobs:
            found = _read(node._knobs["gsv"]._raw).get(group, {}).get(name)
            if found is not None:
                return found
        node = node._group
    return None


def _parts(path):
    group, _, name = path.rpartition(".")
    return group or DEFAULT, name


def _spell(sets):
    return " ".join(
        quote(f"{quote(name)} {quote(_listed(own))}") for name, own in sorted(sets.items())
    )


def _listed(own):
    return " ".join(f"{quote(name)} {quote(value)}" for name, value in sorted(own.items()))


def _read(text):
    """Return the sets that a text of our own holds; of any other text none."""
    found = {}
    for entry in split(text):
        words = split(entry)
        if len(words) != 2:
            return {}
        own = split(words[1])
        found[words[0]] = dict(zip(own[::2], own[1::2]))
    return found
