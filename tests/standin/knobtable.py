# SPDX-License-Identifier: Apache-2.0
"""The knobs of a node by name, made when they are first asked for.

A node has some fifty knobs, and a script says three of them. The others stand here as the entries
of the class table until somebody looks.
"""


class KnobTable(dict):
    """A node's knobs by name, in their order.

    Args:
        entries: ``{name: (kind, default, items)}`` of the class.
        make: Function that makes the knob of a name and its entry.
    """

    __slots__ = ("_is_whole", "_make")

    def __init__(self, entries, make):
        super().__init__(entries)
        self._make, self._is_whole = make, False

    def __getitem__(self, name):
        found = dict.__getitem__(self, name)
        if type(found) is tuple:
            found = self._make(name, *found)
            dict.__setitem__(self, name, found)
        return found

    def get(self, name, default=None):
        return self[name] if dict.__contains__(self, name) else default

    def pop(self, name, default=None):
        found = self.get(name, default)
        dict.pop(self, name, None)
        return found

    def values(self):
        """Return all knobs."""
        return self.whole().values()

    def items(self):
        """Return all names with their knobs."""
        return self.whole().items()

    def whole(self):
        """Return all of it as a plain dict."""
        if not self._is_whole:
            for name in self:
                self[name]
            self._is_whole = True
        return dict.copy(self)

    def touched(self):
        """Return the knobs that were asked for, with their names: all others are as made."""
        return [(name, knob) for name, knob in dict.items(self) if type(knob) is not tuple]

    def renamed(self, old, new):
        """Give a knob's place to another name."""
        entries = {new if name == old else name: knob for name, knob in dict.items(self)}
        dict.clear(self)
        dict.update(self, entries)
