# SPDX-License-Identifier: Apache-2.0
"""From a node at a frame to plain steps: every knob resolved, a function per class.

Each function takes the :class:`Planner`, the node and the frame, and returns the number of the
step that gives the node's picture.
"""

from standin import classes, plan_channels, plan_samples, precomps
from standin.proxies import Proxy

_PASS_WORDS = (
    "Dot NoOp Write Output FrameRange PostageStamp ModifyMetaData ViewMetaData AdjBBox "
    "BlackOutside Viewer JoinViews"
)
_PASS = tuple(_PASS_WORDS.split())
_SHORT = {c: f"rgba.{c}" for c in ("red", "green", "blue", "alpha")}
STEPS = {**plan_channels.STEPS, **plan_samples.STEPS}


class Planner:
    """Makes the steps for one node at one frame and view.

    Args:
        app: The stand-in.
        view: Name of the view.
    """

    def __init__(self, app, view):
        self.app, self.view, self.proxy = app, view, Proxy(app)
        self.steps, self._known = [], {}

    def plan(self, node, frame):
        """Return the number of the step that gives a node's picture; 0 inputs give nothing."""
        key = (id(node), frame, self.view)
        if key not in self._known:
            self._known[key] = self._step(node, frame)
        return self._known[key]

    def add(self, op, **step):
        self.steps.append({"op": op, **step})
        return len(self.steps) - 1

    def source(self, node, frame, index=0):
        return self.plan(node.input(index), frame)

    def nothing(self):
        shape = self.app.formats.get(self.app.root._knobs["format"]._raw)
        return self.add("nothing", **self.proxy.shape(shape))

    def _step(self, node, frame):
        if node is None:
            return self.nothing()
        cls, knobs = node._cls, node._knobs
        if cls == "Input":
            number = int(knobs["number"]._number(frame))
            return self.plan(node._group.input(number), frame)
        if cls != "Write" and knobs["disable"]._number(frame):
            return self.source(node, frame)
        if cls in classes.GROUPS:
            inner = [n for n in node._children if n._cls == "Output"]
            if len(inner) != 1:
                raise RuntimeError(f"{node.fullName()} has {len(inner)} Outputs")
            return self.plan(inner[0], frame)
        if cls == "Precomp":
            return precomps.step(self, node, frame)
        if cls in _PASS:
            return self.source(node, frame)
        if cls not in STEPS:
            raise RuntimeError(f"the stand-in computes no {cls}")
        found = STEPS[cls](self, node, frame)
        return found if classes.mask_input_of(cls) is None else self._mixed(node, frame, found)

    def _mixed(self, node, frame, found):
        """Put a result over the input by mix and mask, where they are not at rest."""
        knobs = node._knobs
        mask = node.input(classes.mask_input_of(node._cls))
        channel = knobs["maskChannelMask"]._raw if mask is not None else "none"
        if mask is not None and channel == "none":
            channel = "rgba.alpha"
        if mask is None:
            channel = knobs["maskChannelInput"]._raw
        mixed = knobs["mix"]._number(frame)
        if channel in ("none", "") and mixed == 1:
            return found
        under = self.source(node, frame)
        at = None
        if channel not in ("none", ""):
            at = under if mask is None else self.plan(mask, frame)
        invert = bool(knobs["invert_mask"]._number(frame))
        named = self.channel(node, channel) if at is not None else ""
        return self.add("mix", a=found, b=under, mask=at, channel=named, invert=invert, mix=mixed)

    # Channels.

    def channel(self, node, word):
        """Return the full name of a channel."""
        word = _SHORT.get(word, word)
        if "." not in word and word in self.app.layers and len(self.app.layers[word]) == 1:
            return self.app.layers[word][0]
        layer = word.partition(".")[0]
        if layer not in self.app.layers:
            raise RuntimeError(f"{node.fullName()}: there is no layer called {layer}")
        return word

    def channels(self, node, word):
        """Return the full names of a word's channels; None for all."""
        found = []
        for part in word.replace("{", " ").replace("}", " ").split():
            if part == "all":
                return None
            if part == "none" or part.startswith("-"):
                continue
            if self.app.layers.get(part):
                found += self.app.layers[part]
            else:
                found.append(self.channel(node, part))
        return list(dict.fromkeys(found))
