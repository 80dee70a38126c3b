# SPDX-License-Identifier: Apache-2.0
"""Questions to the artist, menus, progress bars, undo, and ``nukescripts.panels``.

Nobody sits before the stand-in: a test puts the answers into ``app.answers``, and finds what was
asked in ``app.asked``. Without an interface each of them raises, as in Nuke.
"""

import types


class Undo:
    """``nuke.Undo``: a named step, and switching the list off."""

    app = None

    def __init__(self, name=""):
        self._name = name

    def __enter__(self):
        self.begin(self._name)
        return self

    def __exit__(self, *exc):
        self.end()

    @classmethod
    def begin(cls, name=""):
        if not cls.app.undo_open and not cls.app.undo_off:
            cls.app.undo_steps.append(name)
        cls.app.undo_open += 1

    @classmethod
    def end(cls):
        cls.app.undo_open -= 1

    @classmethod
    def name(cls, text):
        if cls.app.undo_steps:
            cls.app.undo_steps[-1] = text

    @classmethod
    def disable(cls):
        cls.app.undo_off += 1

    @classmethod
    def enable(cls):
        cls.app.undo_off -= 1

    @classmethod
    def disabled(cls):
        return cls.app.undo_off > 0


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
        self._app, self._name, self.items, self.icons = app, name, {}, {}

    def name(self):
        return self._name

    def addMenu(self, name, icon="", **_):
        self.icons[name] = icon
        return self.items.setdefault(name, Menu(self._app, name))

    def menu(self, name):
        found = self.items.get(name)
        return found if isinstance(found, Menu) else None

    def addCommand(self, name, command="", shortcut="", icon="", **_):
        menu, *path = self, *name.split("/")
        while len(path) > 1:
            menu = menu.addMenu(path.pop(0))
        menu.items[path[0]], menu.icons[path[0]] = command, icon
        return command

    def addSeparator(self, **_):
        return None

    def findItem(self, path):
        found = self
        for part in path.split("/"):
            found = found.items.get(part) if isinstance(found, Menu) else None
        return found

    def removeItem(self, name):
        self.items.pop(name, None)

    def click(self, path):
        """Choose a command, as the artist does."""
        command = self.findItem(path)
        with self._app.timed(path):
            if callable(command):
                command()
            else:
                import nuke

                exec(compile(command, f"<{path}>", "exec"), {"nuke": nuke})


def questions(app):
    """Return the functions of ``nuke`` that ask an artist something."""

    def needs_interface():
        if not app.gui:
            raise RuntimeError("there is no interface")

    def message(text):
        needs_interface()
        app.messages.append(text)

    def answered(default):
        def ask(*words, **_):
            needs_interface()
            app.asked.append(" ".join(map(str, words[:1])))
            return app.answers.pop(0) if app.answers else default

        return ask

    def menu(name):
        needs_interface()
        return app.opened_menus.setdefault(name, Menu(app, name))

    return {
        "message": message,
        "menu": menu,
        "menuBar": lambda: menu("Nuke"),
        "toolbar": lambda name, *_: menu(name),
        "ask": answered(False),
        "askWithCancel": answered(False),
        "getInput": answered(None),
        "choice": answered(0),
        "getFilename": answered(None),
        "getClipname": answered(None),
        "getFramesAndViews": answered(None),
        "getColor": answered(0),
        "display": lambda *_: None,
    }


class Panel:
    """``nuke.Panel``: fields by name, and what a test answered for ``show``."""

    def __init__(self, title="", *_):
        self._title, self._values = title, {}

    def title(self):
        return self._title

    def setTitle(self, title):
        self._title = title

    def setWidth(self, width):
        return None

    def _add(self, name, value="", *_):
        self._values[name] = value
        return True

    addSingleLineInput = addMultilineTextInput = addBooleanCheckBox = addFilenameSearch = _add
    addClipnameSearch = addExpressionInput = addNotepad = addScriptCommand = _add

    def addEnumerationPulldown(self, name, items):
        return self._add(name, items.split()[0] if items.split() else "")

    def addButton(self, name):
        return True

    def value(self, name):
        return self._values.get(name)

    def setValue(self, name, value):
        self._values[name] = value

    def show(self):
        app = Undo.app
        app.asked.append(self._title)
        answer = app.answers.pop(0) if app.answers else False
        if isinstance(answer, dict):
            self._values.update(answer)
        return int(bool(answer))

    execute = show


def nukescripts(app, make_knob_holder):
    """Return ``nukescripts`` and ``nukescripts.panels`` with a Python panel of knobs."""

    class PythonPanel:
        """``nukescripts.PythonPanel``: knobs in a window."""

        def __init__(self, title="", panel_id="", scrollable=True):
            self._holder, self._title, self._id = make_knob_holder(), title, panel_id
            self.shown = False

        def addKnob(self, knob):
            self._holder.addKnob(knob)

        def removeKnob(self, knob):
            self._holder.removeKnob(knob)

        def knobs(self):
            return {n: k for n, k in self._holder.knobs().items() if k._user is not None}

        def setMinimumSize(self, *_):
            return None

        def knobChanged(self, knob):
            return None

        def show(self):
            self.shown = True

        def showModalDialog(self):
            app.asked.append(self._title)
            answer = app.answers.pop(0) if app.answers else False
            for name, value in answer.items() if isinstance(answer, dict) else ():
                self._holder[name].setValue(value)
            return bool(answer)

        def addToPane(self, pane=None):
            self.shown = True
            return self

    module = types.ModuleType("nukescripts", "The stand-in for nukescripts.")
    panels = types.ModuleType("nukescripts.panels")
    module.__path__ = []
    registered = {}

    def register_panel(panel_id, command):
        registered[panel_id] = command

    def widget_panel(widget, name, panel_id, create=False):
        registered[panel_id] = widget
        if app.gui:
            app.opened_menus.setdefault("Pane", Menu(app, "Pane")).addCommand(name, widget)
        return PythonPanel(name, panel_id) if create else None

    for target in (module, panels):
        target.PythonPanel = PythonPanel
        target.registerPanel = register_panel
        target.registerWidgetAsPanel = widget_panel
        target.restorePanel = lambda panel_id: registered[panel_id]
    module.panels, module.registered = panels, registered
    return module, panels
