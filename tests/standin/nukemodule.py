# SPDX-License-Identifier: Apache-2.0
"""What stands behind ``import nuke``: its functions, classes and constants, of one application."""

import functools
import sys
import types
from pathlib import Path

from standin import (
    animation,
    expression,
    graph,
    gsv,
    knobtypes,
    node,
    nukemath,
    panels,
    rotopaint,
)
from standin.app import App
from standin.formats import Box, Format, FrameRange, FrameRanges
from standin.knobs import Knob, class_of
from standin.texts import substitute

_VERSION = (15, 1, 5)
_CONSTANTS = {
    **{name: bit for name, (bit, _) in knobtypes.FLAGS.items()},
    "CONSTANT": animation.CONSTANT,
    "LINEAR": animation.LINEAR,
    "SMOOTH": animation.SMOOTH,
    "INPUTS": node.INPUTS,
    "HIDDEN_INPUTS": node.HIDDEN_INPUTS,
    "EXPRESSIONS": node.EXPRESSIONS,
    "LINKINPUTS": node.LINKINPUTS,
    "TABKNOB": 0,
    "TABBEGINGROUP": 1,
    "TABBEGINCLOSEDGROUP": 2,
    "TABENDGROUP": -1,
    "NUM_CPUS": 1,
    "THREADS": 1,
    "WRITE_ALL": 0x8,
    "WRITE_NON_DEFAULT_ONLY": 0x10,
    "WRITE_USER_KNOB_DEFS": 0x20,
    "TO_SCRIPT": 0x1,
    "TO_VALUE": 0x2,
}


class OutputContext:
    """``nuke.OutputContext``: a frame and a view to evaluate a path at."""

    def __init__(self, frame=None, view=None):
        self._frame, self._view = frame, view

    def setFrame(self, frame):
        self._frame = frame

    def setView(self, view):
        self._view = view if isinstance(view, str) else App.current.views()[view - 1]

    def frame(self):
        return App.current.frame if self._frame is None else self._frame

    def viewname(self, _view=None):
        return self._view or App.current.view

    def viewcount(self):
        return len(App.current.views())


class Nodes:
    """``nuke.nodes``: a function per class that makes a node of it, without a panel."""

    def __init__(self, app):
        self._app = app

    def __getattr__(self, cls):
        if cls.startswith("_"):
            raise AttributeError(cls)

        def make(inputs=(), **knobs):
            made = self._app.create(cls, inpanel=False)
            for name, value in knobs.items():
                if name == "name":
                    made.setName(value)
                else:
                    made[name].setValue(value)
            for index, source in enumerate(inputs):
                made.setInput(index, source)
            return made

        return make


def install(app):
    """Put an application behind ``import nuke`` and return it."""
    module = sys.modules.get("nuke")
    if module is None or not getattr(module, "is_standin", False):
        module = types.ModuleType("nuke", "The stand-in for Nuke's Python module.")
        module.__path__ = []
        sys.modules["nuke"] = module
    panels.Undo.app = app
    names = {
        **_CONSTANTS,
        **_about(app),
        **_graph(app),
        **_scripts(app),
        **_running(app),
        **panels.questions(app),
        **app.hooks.functions(),
        **_classes(app),
    }
    for name, value in names.items():
        setattr(module, name, value)
    _submodules(app, module)
    return app


def _about(app):
    major, minor, release = _VERSION
    text = f"{major}.{minor}v{release}"
    return {
        "is_standin": True,
        "GUI": app.gui,
        "INTERACTIVE": app.gui,
        "NUKE_VERSION_STRING": text,
        "NUKE_VERSION_MAJOR": major,
        "NUKE_VERSION_MINOR": minor,
        "NUKE_VERSION_RELEASE": release,
        "EXE_PATH": app.program,
        "rawArgs": app.raw_args,
        "env": {
            "gui": app.gui,
            "interactive": app.gui,
            "NukeVersionString": text,
            "NukeVersionMajor": major,
            "NukeVersionMinor": minor,
            "ExecutablePath": app.program,
            "LINUX": sys.platform.startswith("linux"),
            "WIN32": sys.platform == "win32",
            "MACOS": sys.platform == "darwin",
            "indie": False,
            "nc": False,
            "studio": False,
            "nukex": False,
        },
    }


def _graph(app):
    def selected():
        return [n for n in app.context._children if n.isSelected()]

    def one_selected():
        found = selected()
        if not found:
            raise ValueError("no node selected")
        return found[-1]

    def clone(original, args="", inpanel=True):
        made = graph.Node(app, original._cls, app.context)
        made._clone_of, made._spelt = original, original._spelt
        for name, knob in original._knobs.items():
            if name not in ("name", "xpos", "ypos", "selected"):
                made._knobs[name] = knob
        made._join(app.context)
        return made

    def exists(name):
        return app.root._exists(name) == "1" or app.context._exists(name) == "1"

    def connect(index, node, source):
        return node.setInput(index, source)

    return {
        "nodes": Nodes(app),
        "allNodes": app.all_nodes,
        "selectedNodes": lambda cls=None: [n for n in selected() if cls in (None, n._cls)],
        "selectedNode": one_selected,
        "createNode": app.create,
        "clone": clone,
        "connectNodes": connect,
        "delete": app.delete,
        "root": lambda: app.root,
        "thisGroup": lambda: app.context,
        "thisParent": lambda: app.this_node()._group,
        "thisClass": lambda: app.this_node()._cls,
        "thisKnob": app.this_knob,
        "thisNode": app.this_node,
        "thisView": lambda: app.view,
        "toNode": app.to_node,
        "exists": exists,
        "inputs": lambda node, *_: node.inputs(),
        "layers": lambda node=None: list(app.layers),
        "channels": lambda node=None: [c for found in app.layers.values() for c in found],
        "Layer": _layer(app),
        "addFormat": app.formats.add,
        "formats": lambda: list(app.formats.known.values()),
        "autoplace": lambda node: None,
        "autoplaceSnap": lambda node: None,
        "knobDefault": lambda name, value=None: _knob_default(app, name, value),
        "expression": lambda text: expression.evaluate(text, _of_root(app), app.frame),
        "tcl": lambda *words: substitute(f"[{' '.join(words)}]", app.context, app.frame),
        "views": app.views,
        "addView": lambda name: _add_view(app, name),
        "frame": lambda value=None: _frame(app, value),
        "activeViewer": lambda: None,
        "zoom": lambda *_: None,
    }


def _scripts(app):
    def copy(path, nodes=None):
        chosen = nodes or [n for n in app.context._children if n.isSelected()]
        app.clipboard = app.copy(chosen)
        if path not in ("%clipboard%", "cut_paste_input"):
            Path(path).write_text(app.clipboard, encoding="utf-8")

    def paste(path="%clipboard%"):
        if path in ("%clipboard%", "cut_paste_input"):
            return _last(app.paste(app.clipboard))
        return _last(app.paste(Path(path).read_text(encoding="utf-8")))

    def close(*_):
        app.clear()
        app.closed = True

    def name():
        if not app.root.name():
            raise RuntimeError("no script name")
        return app.root.name()

    return {
        "nodeCopy": copy,
        "nodePaste": paste,
        "modified": lambda status=None: _modified(app, status),
        "scriptClear": lambda *_: app.clear(),
        "scriptClose": close,
        "scriptExit": close,
        "scriptName": name,
        "scriptOpen": app.open,
        "scriptReadFile": lambda path: app.paste(Path(path).read_text(encoding="utf-8")),
        "scriptReadText": app.paste,
        "scriptSave": lambda path="", *_: app.save(path),
        "scriptSaveAs": lambda path=None, overwrite=-1: app.save(path),
        "scriptSaveToTemp": app.save,
    }


def _running(app):
    def with_result(call, args=(), kwargs=None):
        if app.is_main_thread():
            raise AssertionError("executeInMainThreadWithResult hangs Nuke on the main thread")
        return app.execute_in_main_thread_and_wait(call, args, kwargs)

    def tprint(*words, **_):
        app.printed.append(" ".join(map(str, words)))

    return {
        "execute": app.execute,
        "render": app.execute,
        "executing": lambda: app.is_executing,
        "executeMultiple": app.execute_multiple,
        "executeBackgroundNuke": app.execute_background,
        "executeInMainThread": app.execute_in_main_thread,
        "executeInMainThreadWithResult": with_result,
        "pluginAddPath": lambda path, addToSysPath=True: app.add_plugin_path(path),
        "pluginAppendPath": lambda path, addToSysPath=True: app.add_plugin_path(path, first=False),
        "pluginPath": lambda: [str(folder) for folder in app.plugin_path],
        "tprint": tprint,
        "debug": tprint,
        "warning": tprint,
        "error": tprint,
        "filenameFilter": lambda text: app.hooks.filtered("filenameFilter", text),
    }


def _classes(app):
    knobs = {name for _, name in knobtypes.CODES.values()} | set(knobtypes.CLASSES.values())
    return {
        **{name: class_of(name) for name in knobs if name != "Knob"},
        "AnimationCurve": animation.AnimationCurve,
        "AnimationKey": animation.AnimationKey,
        "Box": Box,
        "Format": Format,
        "FrameRange": FrameRange,
        "FrameRanges": FrameRanges,
        "Group": graph.Node,
        "Knob": Knob,
        "Node": graph.Node,
        "OutputContext": OutputContext,
        "Panel": panels.Panel,
        "Gsv_Knob": gsv.Gsv_Knob,
        "ProgressTask": panels.ProgressTask,
        "Root": graph.Node,
        "Undo": panels.Undo,
    }


def _submodules(app, module):
    math = types.ModuleType("nuke.math")
    for name in ("Matrix4", "Vector2", "Vector3", "Vector4"):
        setattr(math, name, getattr(nukemath, name))
    callbacks = types.ModuleType("nuke.callbacks")
    for name, value in {**app.hooks.functions(), "filenameFilter": module.filenameFilter}.items():
        setattr(callbacks, name, value)
    found = {"math": math, "nukemath": math, "callbacks": callbacks, "rotopaint": rotopaint}
    found["localization"] = app.local_copies.module()
    found["curvelib"] = found["curveknob"] = rotopaint
    for name, value in found.items():
        setattr(module, name, value)
        sys.modules[f"nuke.{name}"] = value
    holder = functools.partial(graph.Node, app, "NoOp", app.root)
    scripts, own = panels.nukescripts(app, holder)
    sys.modules["nukescripts"], sys.modules["nukescripts.panels"] = scripts, own


def _last(nodes):
    return nodes[-1] if nodes else None


def _layer(app):
    def layer(name, channels):
        app.layers.setdefault(name, tuple(channels))
        return name

    return layer


def _of_root(app):
    def look_up(name, frame=None):
        return app.context._number_of(name, app.frame if frame is None else frame)

    return look_up


def _knob_default(app, name, value):
    cls, _, knob = name.rpartition(".")
    if value is None:
        return app.defaults.get((cls or "*", knob))
    app.defaults[(cls or "*", knob)] = str(value)
    return None


def _add_view(app, name):
    knob = app.root._knobs["views"]
    if name not in app.views():
        knob._raw = "\n".join([*knob._raw.strip().split("\n"), name])


def _modified(app, status):
    if status is not None:
        app.is_modified = bool(status)
    return app.is_modified


def _frame(app, value):
    if value is not None:
        app.root["frame"].setValue(int(value))
    return app.frame
