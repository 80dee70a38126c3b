# SPDX-License-Identifier: Apache-2.0
"""The application: start-up, scripts, the main thread, callbacks, rendering.

One :class:`App` is one running Nuke. ``install`` makes one and puts it behind ``import nuke``; the
module stays the same object, so that code that imported it earlier meets the newest application.
"""

import contextlib
import queue
import sys
import threading
from pathlib import Path

from standin import graph, precomps
from standin.formats import Formats
from standin.hooks import Hooks, compiled
from standin.localization import LocalCopies
from standin.pixels import Pixels
from standin.rendering import Rendering
from standin.tclscript import ScriptError, decode, split
from standin.watchdog import Watch

BUILTIN_LAYERS = {
    "rgb": ("rgba.red", "rgba.green", "rgba.blue"),
    "rgba": ("rgba.red", "rgba.green", "rgba.blue", "rgba.alpha"),
    "alpha": ("rgba.alpha",),
    "depth": ("depth.Z",),
    "motion": ("forward.u", "forward.v", "backward.u", "backward.v"),
    "forward": ("forward.u", "forward.v"),
    "backward": ("backward.u", "backward.v"),
    "mask": ("mask.a",),
    "none": (),
    "all": (),
}


class App(Rendering):
    """One running Nuke.

    Args:
        gui: Whether it has an interface.
        strict: Refuse knobs that the class table does not know.
    """

    current = None

    def __init__(self, *, gui=False, strict=True):
        App.current = self
        self.gui, self.strict = gui, strict
        self._main = threading.get_ident()
        self._calls = queue.Queue()
        self.printed, self.messages, self.edits, self.opened_menus = [], [], [], {}
        self.answers = []  # What the artist answers to ask, getInput, choice: first one first.
        self.asked = []  # What was asked.
        self.panels = set()
        self.plugin_path, self.raw_args, self.start_folders = [], [], []
        self.layers, self.notes = dict(BUILTIN_LAYERS), []
        self.builtin_layers = BUILTIN_LAYERS
        self.formats, self.defaults, self.clipboard = Formats(), {}, ""
        self.loading = self.in_knob_changed = self.is_executing = self.is_modified = False
        self.frame_rendered = None  # The frame that a render is at, which scripts see.
        self.cancel_render_after = None  # A test sets how many frames render before a cancel.
        self.rendered, self.background, self.closed = [], [], False
        self.undo_off, self.undo_open, self.undo_steps = 0, 0, []
        self.view = "main"
        self._running_file = None
        self._watch = Watch()
        self.hooks = Hooks(self)
        self.local_copies = LocalCopies()
        self.pixels = Pixels(self)
        self._new_root()

    def _new_root(self):
        self.root = graph.Node(self, "Root", None)
        self._contexts, self._this = [self.root], []
        self.notes, self.is_modified = [], False

    @property
    def frame(self):
        if self.frame_rendered is not None:
            return self.frame_rendered
        return int(float(self.root._knobs["frame"]._raw or 1))

    def frame_and_view(self, context):
        """Return frame and view of a number, a ``nuke.OutputContext`` or nothing."""
        if context is None:
            return self.frame, self.view
        if hasattr(context, "frame"):
            return context.frame(), context.viewname(None)
        return context, self.view

    def views(self):
        """Return the names of the script's views."""
        lines = [split(line) for line in self.root._knobs["views"]._raw.strip().split("\n")]
        return [words[0] for words in lines if words] or ["main"]

    # --- threads ---------------------------------------------------------------------------------

    def check_thread(self, what):
        """Refuse another thread than the main one: Nuke would crash, now or later."""
        if threading.get_ident() != self._main:
            raise RuntimeError(f"'{what}' was touched outside Nuke's main thread")

    def is_main_thread(self):
        return threading.get_ident() == self._main

    def execute_in_main_thread_and_wait(self, call, args=(), kwargs=None):
        done, found = threading.Event(), []

        def run(*words, **more):
            try:
                found.append(call(*words, **more))
            finally:
                done.set()

        self.execute_in_main_thread(run, args, kwargs)
        done.wait()
        return found[0] if found else None

    def execute_in_main_thread(self, call, args=(), kwargs=None):
        args = args if isinstance(args, tuple) else (args,)
        self._calls.put((call, args, kwargs or {}))

    def process_events(self, until, timeout_s=60.0):
        """Do what Nuke's event loop does between an artist's clicks, until a condition holds."""
        waited = 0.0
        while not until():
            try:
                call, args, kwargs = self._calls.get(timeout=0.05)
            except queue.Empty:
                waited += 0.05
                if waited > timeout_s:
                    raise AssertionError("nothing happened for too long") from None
                continue
            waited = 0.0
            with self.timed(getattr(call, "__qualname__", repr(call))):
                call(*args, **kwargs)

    def idle(self):
        """Do what is queued now, then run updateUI as Nuke does when nothing happens."""
        while not self._calls.empty():
            call, args, kwargs = self._calls.get()
            with self.timed(getattr(call, "__qualname__", repr(call))):
                call(*args, **kwargs)
        for node in list(self.everything()):
            if node._alive:
                self.hooks.script("updateUI", node)

    @contextlib.contextmanager
    def watch(self):
        """Record how long the main thread is held while this lasts, and by what."""
        self._watch = Watch()
        self._watch.is_on = True
        try:
            yield self._watch
        finally:
            self._watch.is_on = False

    def timed(self, what):
        return self._watch.entry(what)

    def untimed(self):
        return self._watch.left_out()

    # --- scripts ---------------------------------------------------------------------------------

    def clear(self):
        if self.root._children or self.root._knobs["name"]._raw:
            self.hooks.script("onScriptClose", self.root)
        for node in self.everything():
            node._alive = False
        self._new_root()

    def open(self, path):
        """Open a script."""
        text = decode(Path(path).read_bytes())
        self.clear()
        self.root._knobs["name"]._raw = Path(path).as_posix()
        with self.untimed():
            graph.load(self, text, self.root, strict=self.strict)
        self.root._knobs["name"]._raw = Path(path).as_posix()
        self.is_modified = False  # What callbacks change from here on, counts.
        self.hooks.script("onScriptLoad", self.root)

    def save(self, path=None):
        """Save the script; it is called so afterwards. Callbacks come first and may stop it."""
        path = path or self.root._knobs["name"]._raw  # nuke.scriptSave("") keeps the name
        if not path:
            raise RuntimeError("the script has no name")
        self.root._knobs["name"]._raw = Path(path).as_posix()
        self.hooks.script("onScriptSave", self.root)
        Path(path).write_text(self.script_text(), encoding="utf-8")
        self.is_modified = False

    def script_text(self):
        """Return the script as it would be saved."""
        with self.untimed():
            for node in self.everything():
                for _, knob in node._knobs.touched():
                    knob._keep_curves()
            return graph.dump_script(self)

    def create(self, cls, knobs="", inpanel=True):
        """Make a node of a class, or of a gizmo on the plug-in path."""
        group = self._contexts[-1]
        file = self._find_plugin(cls)
        with self.untimed():
            if file is not None:
                text = file.read_text(encoding="utf-8")
            elif graph.classes.knobs_of(cls) is None:
                raise RuntimeError(f"{cls}: Unknown command")
            else:
                number = f"number {_free_number(group)} " if cls == "Input" else ""
                text = f"{cls} {{inputs 0 {number}{self._default_knobs(cls)}{knobs}}}"
            made = graph.build(self, text, group, strict=self.strict)
        if self.strict:
            for node in made:
                graph.check_links(node)
        for node in made:
            self.created(node)
        top = next(node for node in made if node._group is group)
        self.hooks.call("onUserCreate", top)
        if cls == "Input":
            self.input_changed(group)
        if inpanel and self.gui:
            self.panels.add(top._knobs["name"]._raw)
        return top

    def _default_knobs(self, cls):
        found = {name: value for (at, name), value in self.defaults.items() if at in ("*", cls)}
        return "".join(f"{name} {graph.quote(value)} " for name, value in found.items())

    def created(self, node):
        """Run what runs when a node comes to be: made, loaded, pasted."""
        if node._cls == "Precomp":
            precomps.fill(self, node)
        self.hooks.script("onCreate", node)

    def input_changed(self, node):
        """Tell a node that a connection of it changed."""
        if node._group is not None and not self.loading:
            self.is_modified = True
            node._knob_changed(_Pseudo(self, node, "inputChange"))

    def panel_shown(self, node):
        """Tell a node that its panel opens."""
        self.panels.add(node._knobs["name"]._raw)
        node._knob_changed(_Pseudo(self, node, "showPanel"))

    def paste(self, text):
        """Paste a script's text, as from the clipboard."""
        return graph.load(self, text, self._contexts[-1], strict=self.strict)

    def copy(self, nodes):
        """Return the text that copying nodes puts on the clipboard."""
        for node in nodes:
            for one in [node, *self._everything(node)]:
                for _, knob in one._knobs.touched():
                    knob._keep_curves()
        return graph.dump(self, nodes)

    def delete(self, node):
        for one in [node, *self._everything(node)]:
            self.hooks.script("onDestroy", one)
        followers = [n for n in node._group._children if node in n._inputs]
        node._leave()
        for other in followers:
            other._inputs = [None if n is node else n for n in other._inputs]
        for other in [node, *self._everything(node)]:
            other._alive = False
        if node._cls == "Input":
            self.input_changed(node._group)
        for other in followers:
            self.input_changed(other)

    def everything(self):
        """Yield every node of the script, in groups too."""
        return self._everything(self.root)

    def _everything(self, group):
        for node in list(group._children):
            yield node
            yield from self._everything(node)

    def all_nodes(self, filter=None, group=None, recurseGroups=False):  # noqa: A002 - Nuke\'s name
        top = group or self._contexts[-1]
        found = list(self._everything(top)) if recurseGroups else list(top._children)
        return [n for n in found if filter is None or n._cls == filter]

    def to_node(self, name):
        if name == "root":
            return self.root
        return self._contexts[-1].node(name) or self.root.node(name)

    def enter(self, group):
        self._contexts.append(group)

    def leave(self):
        if len(self._contexts) > 1:
            self._contexts.pop()

    @property
    def context(self):
        """The group that new nodes go to."""
        return self._contexts[-1]

    def this_node(self):
        return self._this[-1][0] if self._this else self._contexts[-1]

    def this_knob(self):
        return self._this[-1][1] if self._this else None

    @contextlib.contextmanager
    def standing_in(self, node, knob):
        """Make ``thisNode`` and ``thisKnob`` mean these."""
        self._this.append((node, knob))
        try:
            yield
        finally:
            self._this.pop()

    def run_callback(self, script, node, knob):
        """Run a knob's Python as Nuke does: with thisNode and thisKnob set."""
        what = f"{node._knobs['name']._raw}.{knob._name if knob is not None else 'onCreate'}"
        with self.standing_in(node, knob), self.timed(what):
            exec(compiled(script, f"<{node._cls}>"), {"nuke": sys.modules["nuke"]})

    def note_edit(self, node, knob):
        """Keep what would stand in the undo list."""
        if self.loading:
            return
        self.is_modified = True
        if self.undo_off:
            return
        if not self.undo_open:
            self.undo_steps.append("edit" if knob is None else knob._name)
        self.edits.append((node, knob))

    # --- start-up --------------------------------------------------------------------------------

    def add_plugin_path(self, path, *, first=True):
        folder = Path(path)
        if not folder.is_absolute() and self._running_file is not None:
            folder = self._running_file.parent / folder
        folder = folder.resolve()
        self.plugin_path.insert(0 if first else len(self.plugin_path), folder)
        sys.path.insert(0 if first else len(sys.path), str(folder))

    def start(self, nuke_path=()):
        """Run every init.py and, with an interface, every menu.py; the last folder first."""
        folders = [Path(folder).resolve() for folder in nuke_path]
        self.plugin_path.extend(folders)
        self.start_folders.extend(folders)
        for name in ("init.py", "menu.py") if self.gui else ("init.py",):
            for folder in reversed(folders):
                if (folder / name).is_file():
                    self.run_file(folder / name)

    def run_file(self, path, argv=()):
        """Run a Python file as Nuke runs start-up files and ``-t`` scripts."""
        path = Path(path).resolve()
        was, self._running_file = self._running_file, path
        saved, sys.argv = sys.argv, [str(path), *argv]
        try:
            scope = {"__name__": "__main__", "__file__": str(path)}
            exec(compiled(path.read_text(encoding="utf-8"), str(path)), scope)
        finally:
            self._running_file, sys.argv = was, saved

    def _find_plugin(self, name):
        for folder in self.plugin_path:
            if (folder / f"{name}.gizmo").is_file():
                return folder / f"{name}.gizmo"
        return None


class _Pseudo:
    """A knob that is none: ``showPanel``, ``inputChange``."""

    def __init__(self, app, node, name):
        self._app, self._node, self._name = app, node, name

    def name(self):
        return self._name

    def node(self):
        return self._node


def _free_number(group):
    taken = {int(n._knobs["number"]._raw or 0) for n in group._children if n._cls == "Input"}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def install(*, gui=False, strict=True):
    """Make an application, put it behind ``import nuke`` and return it."""
    from standin.nukemodule import install as put

    return put(App(gui=gui, strict=strict))


__all__ = ["App", "ScriptError", "install"]
