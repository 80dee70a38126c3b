# SPDX-License-Identifier: Apache-2.0
"""Callbacks: ``nuke.addBeforeRender`` and its sisters, in the order in which Nuke runs them.

What stands on the node's or the root's own knob comes first, then what was added for the class,
then what was added for ``*``.
"""

import functools

_KINDS = (
    "onCreate onUserCreate onDestroy knobChanged updateUI autolabel onScriptLoad onScriptSave "
    "onScriptClose beforeRender beforeFrameRender afterFrameRender afterRender renderProgress "
    "beforeBackgroundRender afterBackgroundRender filenameFilter validateFilename "
    "beforeBackgroundFrameRender afterBackgroundFrameRender autoSaveFilter autoSaveRestoreFilter"
)
KINDS = tuple(_KINDS.split())
_PLAIN = ("filenameFilter", "validateFilename", "autoSaveFilter", "autoSaveRestoreFilter")


@functools.lru_cache(maxsize=1000)
def compiled(script, name):
    """Return a callback's or a file's Python; the same texts come again and again."""
    return compile(script, name, "exec")


class Hooks:
    """What was added, by kind and class.

    Args:
        app: The stand-in.
    """

    def __init__(self, app):
        self._app = app
        self._added = {kind: [] for kind in KINDS}

    def add(self, kind, call, args=(), kwargs=None, nodeClass="*"):
        entry = (call, tuple(args) if isinstance(args, (list, tuple)) else (args,), kwargs or {})
        self._added[kind].append((nodeClass, entry))

    def remove(self, kind, call, args=(), kwargs=None, nodeClass="*"):
        kept = [e for e in self._added[kind] if not (e[0] == nodeClass and e[1][0] == call)]
        self._added[kind] = kept

    def functions(self):
        """Return ``{name: function}`` of all that ``nuke`` offers to add and remove."""
        found = {}
        for kind in KINDS:
            title = kind[0].upper() + kind[1:]
            found[f"add{title}"] = self._adder(kind)
            found[f"remove{title}"] = self._remover(kind)
        return found

    def _adder(self, kind):
        def add(call, args=(), kwargs=None, nodeClass="*"):
            self.add(kind, call, args, kwargs, nodeClass)

        return add

    def _remover(self, kind):
        def remove(call, args=(), kwargs=None, nodeClass="*"):
            self.remove(kind, call, args, kwargs, nodeClass)

        return remove

    def _for(self, kind, cls):
        entries = self._added[kind]
        own = [entry for at, entry in entries if at == cls]
        return own + [entry for at, entry in entries if at == "*"]

    def call(self, kind, node, knob=None):
        """Run what was added for a node's class, with thisNode and thisKnob set."""
        for call, args, kwargs in self._for(kind, node._cls):
            with self._app.standing_in(node, knob), self._app.timed(_name(call)):
                call(*args, **kwargs)

    def script(self, kind, node):
        """Run the node's own knob of that name, then what was added."""
        knob = node._knobs.get(kind)
        if knob is not None and knob._raw:
            self._app.run_callback(knob._raw, node, knob)
        if kind not in _PLAIN:
            self.call(kind, node)

    def filtered(self, kind, text):
        """Pass a file name through the filters, each given what the one before returned."""
        for call, args, kwargs in self._for(kind, "*"):
            found = call(text, *args, **kwargs)
            text = text if found is None else found
        return text

    def label(self, node):
        """Return what the autolabel callbacks say of a node; the last that says something wins."""
        said = None
        for call, args, kwargs in self._for("autolabel", node._cls):
            with self._app.standing_in(node, None):
                found = call(*args, **kwargs)
            said = found if found is not None else said
        return said


def _name(call):
    return getattr(call, "__qualname__", repr(call))
