# SPDX-License-Identifier: Apache-2.0
"""The application: start-up, the ``nuke`` module, its main thread, rendering.

One :class:`App` is one running Nuke. ``install`` makes one and puts it behind ``import nuke``; the
module stays the same object, so that code that imported it earlier meets the newest application.
"""

import queue
import sys
import threading
import types
from pathlib import Path

from standin import graph
from standin.pixels import Pixels
from standin.tclscript import ScriptError

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


class App:
    """One running Nuke.

    Args:
        gui: Whether it has an interface.
        strict: Refuse knobs that the class table does not know.
    """

    def __init__(self, *, gui=False, strict=True):
        self.gui, self.strict = gui, strict
        self._main = threading.get_ident()
        self._calls = queue.Queue()
        self.printed, self.messages, self.edits, self.opened_menus = [], [], [], {}
        self.plugin_path, self.raw_args = [], []
        self.layers = dict(BUILTIN_LAYERS)
        self.builtin_layers = frozenset(BUILTIN_LAYERS)
        self.loading = self.in_knob_changed = self.is_executing = False
        self.cancel_render_after = None  # A test sets how many frames render before a cancel.
        self.rendered = []
        self.undo_off, self.undo_open, self.undo_steps = 0, 0, []
        self._running_file = None
        self.pixels = Pixels(self)
        self._new_root()

    def _new_root(self):
        self.root = graph.Node(self, "Root", None)
        self._contexts, self._this = [self.root], []

    @property
    def frame(self):
        return int(float(self.root._knobs["frame"]._raw or 1))

    # --- threads ---------------------------------------------------------------------------------

    def check_thread(self, what):
        """Refuse another thread than the main one: Nuke would crash, now or later."""
        if threading.get_ident() != self._main:
            raise RuntimeError(f"'{what}' was touched outside Nuke's main thread")

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
            call(*args, **kwargs)

    # --- scripts ---------------------------------------------------------------------------------

    def clear(self):
        for node in self._everything(self.root):
            node._alive = False
        self._new_root()

    def open(self, path):
        """Open a script."""
        self.clear()
        text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
        self.root._knobs["name"]._raw = Path(path).as_posix()
        graph.load(self, text, self.root, strict=self.strict)
        self.root._knobs["name"]._raw = Path(path).as_posix()

    def save(self, path=None):
        """Save the script; it is called so afterwards."""
        path = path or self.root._knobs["name"]._raw  # nuke.scriptSave("") keeps the name
        if not path:
            raise RuntimeError("the script has no name")
        self.root._knobs["name"]._raw = Path(path).as_posix()
        Path(path).write_text(graph.dump_script(self), encoding="utf-8")

    def create(self, cls, knobs="", inpanel=True):
        """Make a node of a class, or of a gizmo on the plug-in path."""
        group = self._contexts[-1]
        file = self._find_plugin(cls)
        if file is not None:
            text = file.read_text(encoding="utf-8")
            return graph.load(self, text, group, strict=self.strict)[0]
        if graph.classes.knobs_of(cls) is None:
            raise RuntimeError(f"{cls}: Unknown command")
        return graph.load(self, f"{cls} {{inputs 0 {knobs}}}", group, strict=self.strict)[0]

    def paste(self, text):
        """Paste a script's text, as from the clipboard."""
        return graph.load(self, text, self._contexts[-1], strict=self.strict)

    def copy(self, nodes):
        """Return the text that copying nodes puts on the clipboard."""
        return graph.dump(self, nodes)

    def delete(self, node):
        node._group._children.remove(node)
        for other in [node, *self._everything(node)]:
            other._alive = False

    def _everything(self, group):
        for node in group._children:
            yield node
            yield from self._everything(node)

    def all_nodes(self, cls=None, group=None, recurseGroups=False):
        top = group or self._contexts[-1]
        found = list(self._everything(top)) if recurseGroups else list(top._children)
        return [n for n in found if cls is None or n._cls == cls]

    def to_node(self, name):
        if name == "root":
            return self.root
        return self._contexts[-1].node(name) or self.root.node(name)

    def enter(self, group):
        self._contexts.append(group)

    def leave(self):
        self._contexts.pop()

    def this_node(self):
        return self._this[-1][0] if self._this else self._contexts[-1]

    def this_knob(self):
        return self._this[-1][1] if self._this else None

    def run_callback(self, script, node, knob):
        """Run a knob's Python as Nuke does: with thisNode and thisKnob set."""
        self._this.append((node, knob))
        try:
            exec(compile(script, f"<{node._cls}>", "exec"), {"nuke": sys.modules["nuke"]})
        finally:
            self._this.pop()

    def note_edit(self, node, knob):
        """Keep what would stand in the undo list."""
        if self.loading or self.undo_off:
            return
        if not self.undo_open:
            self.undo_steps.append("edit" if knob is None else knob._name)
        self.edits.append((node, knob))

    # --- start-up --------------------------------------------------------------------------------

    def add_plugin_path(self, path):
        folder = Path(path)
        if not folder.is_absolute() and self._running_file is not None:
            folder = self._running_file.parent / folder
        folder = folder.resolve()
        self.plugin_path.insert(0, folder)
        sys.path.insert(0, str(folder))

    def start(self, nuke_path=()):
        """Run every init.py and, with an interface, every menu.py; the last folder first."""
        folders = [Path(folder).resolve() for folder in nuke_path]
        self.plugin_path.extend(folders)
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
            exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)
        finally:
            self._running_file, sys.argv = was, saved

    def _find_plugin(self, name):
        for folder in self.plugin_path:
            if (folder / f"{name}.gizmo").is_file():
                return folder / f"{name}.gizmo"
        return None

    # --- rendering -------------------------------------------------------------------------------

    def execute(self, node, start=None, end=None, incr=1, views=None, continueOnError=False):
        """Render a Write, on the main thread, never from inside another rendering."""
        self.check_thread("execute")
        node = self.to_node(node) if isinstance(node, str) else node
        if self.is_executing:
            raise RuntimeError("I'm already executing something else")
        if node._cls != "Write":
            raise RuntimeError(f"{node.fullName()} cannot be executed")
        if node._knobs["disable"].value():
            raise RuntimeError(f"{node.fullName()} is disabled")
        first, last = (self.frame, self.frame) if start is None else (start, end)
        self.is_executing = True
        try:
            for number, frame in enumerate(range(int(first), int(last) + 1, int(incr))):
                if self.cancel_render_after is not None and number >= self.cancel_render_after:
                    raise RuntimeError("Cancelled")
                self.pixels.write(node, frame)
                self.rendered.append((node.fullName(), frame))
        finally:
            self.is_executing = False

    def render_all(self, first, last):
        """Render as ``-x`` does: every Write that is not disabled, in groups too."""
        writes = [n for n in self._everything(self.root) if n._cls == "Write"]
        active = [n for n in writes if not n._knobs["disable"].value()]
        for node in sorted(active, key=lambda n: n._knobs["render_order"].value()):
            self.execute(node, first, last)
        return len(active)


class Undo:
    """``nuke.Undo``: a named step, and switching the list off."""

    app = None

    def __init__(self, name=""):
        self._name = name

    def __enter__(self):
        app = type(self).app
        if not app.undo_open and not app.undo_off:
            app.undo_steps.append(self._name)
        app.undo_open += 1
        return self

    def __exit__(self, *exc):
        type(self).app.undo_open -= 1

    @classmethod
    def disable(cls):
        cls.app.undo_off += 1

    @classmethod
    def enable(cls):
        cls.app.undo_off -= 1


class ProgressTask:
    """``nuke.ProgressTask``: a bar with a cancel button that a test may press."""

    def __init__(self, title=""):
        self.title, self.steps, self.is_pressed = title, [], False

    def setProgress(self, value):
        self.steps.append(int(value))

    def setMessage(self, text):
        self.message = text

    def isCancelled(self):
        return self.is_pressed


class Menu:
    """A menu: names and what they run."""

    def __init__(self, app, name):
        self._app, self._name, self.items = app, name, {}

    def addMenu(self, name, **_):
        return self.items.setdefault(name, Menu(self._app, name))

    def addCommand(self, name, command="", *_, **__):
        self.items[name] = command
        return command


def _layer(app):
    def layer(name, channels):
        app.layers.setdefault(name, tuple(channels))
        return name

    return layer


def install(*, gui=False, strict=True):
    """Make an application, put it behind ``import nuke`` and return it."""
    app = App(gui=gui, strict=strict)
    module = sys.modules.get("nuke")
    if module is None or not getattr(module, "is_standin", False):
        module = types.ModuleType("nuke", "The stand-in for Nuke's Python module.")
        sys.modules["nuke"] = module

    def menu(name):
        if not app.gui:
            raise RuntimeError("there is no interface")
        return app.opened_menus.setdefault(name, Menu(app, name))

    def message(text):
        if not app.gui:
            raise RuntimeError("there is no interface")
        app.messages.append(text)

    Undo.app = app
    names = {
        "is_standin": True,
        "GUI": app.gui,
        "INTERACTIVE": app.gui,
        "NUKE_VERSION_STRING": "15.1v5",
        "NUKE_VERSION_MAJOR": 15,
        "NUKE_VERSION_MINOR": 1,
        "rawArgs": app.raw_args,
        "Undo": Undo,
        "ProgressTask": ProgressTask,
        "Layer": _layer(app),
        "allNodes": app.all_nodes,
        "createNode": app.create,
        "delete": app.delete,
        "execute": app.execute,
        "render": app.execute,
        "executeInMainThread": app.execute_in_main_thread,
        "frame": lambda value=None: _frame(app, value),
        "layers": lambda: list(app.layers),
        "menu": menu,
        "message": message,
        "nodePaste": lambda path: app.paste(Path(path).read_text(encoding="utf-8")),
        "pluginAddPath": app.add_plugin_path,
        "pluginPath": lambda: [str(folder) for folder in app.plugin_path],
        "root": lambda: app.root,
        "scriptClear": app.clear,
        "scriptName": lambda: app.root.name(),
        "scriptOpen": app.open,
        "scriptSave": app.save,
        "scriptSaveAs": lambda path, overwrite=-1: app.save(path),
        "thisKnob": app.this_knob,
        "thisNode": app.this_node,
        "toNode": app.to_node,
        "tprint": lambda *words, **_: app.printed.append(" ".join(map(str, words))),
        "views": lambda: ["main"],
    }
    for name, value in names.items():
        setattr(module, name, value)
    return app


def _frame(app, value):
    if value is not None:
        app.root["frame"].setValue(int(value))
    return app.frame


__all__ = ["App", "ScriptError", "install"]
