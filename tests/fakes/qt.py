# SPDX-License-Identifier: Apache-2.0
"""A Qt of a dozen widgets that remember what they were told; strict about every other name."""

import sys
import types


class Signal:
    """A signal; ``emit`` calls what is connected."""

    def __init__(self):
        self._slots = []

    def connect(self, slot):
        self._slots.append(slot)

    def emit(self, *words):
        for slot in self._slots:
            slot(*words)


class QWidget:
    def __init__(self, *_):
        self.is_shown = True

    def isVisible(self):
        return self.is_shown

    def setVisible(self, shown):
        self.is_shown = shown

    def deleteLater(self):
        self.is_shown = False


class QLabel(QWidget):
    def __init__(self):
        super().__init__()
        self._text = ""

    def text(self):
        return self._text

    def setText(self, text):
        self._text = text

    def setWordWrap(self, on):
        assert on is True


class QPushButton(QWidget):
    def __init__(self, text):
        super().__init__()
        self.text, self.clicked = text, Signal()


class QTreeWidgetItem:
    def __init__(self, texts):
        self._texts, self.writes = list(texts), 0

    def text(self, column):
        return self._texts[column]

    def setText(self, column, text):
        self._texts[column] = text
        self.writes += 1


class QTreeWidget(QWidget):
    def __init__(self):
        super().__init__()
        self.items, self.current, self.currentItemChanged = [], None, Signal()

    def setColumnCount(self, count):
        self.count = count

    def columnCount(self):
        return self.count

    def setHeaderLabels(self, labels):
        assert len(labels) == self.count
        self.labels = labels

    def setRootIsDecorated(self, on):
        assert on is False

    def clear(self):
        self.items, self.current = [], None

    def addTopLevelItem(self, item):
        self.items.append(item)

    def topLevelItem(self, index):
        return self.items[index]

    def currentItem(self):
        return self.current

    def indexOfTopLevelItem(self, item):
        return self.items.index(item) if item in self.items else -1


class ScrollBar:
    def maximum(self):
        return 7

    def setValue(self, value):
        self.value = value


class QPlainTextEdit(QWidget):
    def __init__(self):
        super().__init__()
        self._text, self._bar = "", ScrollBar()

    def setReadOnly(self, on):
        assert on is True

    def toPlainText(self):
        return self._text

    def setPlainText(self, text):
        self._text = text

    def verticalScrollBar(self):
        return self._bar


class Layout:
    def __init__(self, *_):
        self.inside = []

    def addWidget(self, widget):
        self.inside.append(widget)

    addLayout = addWidget


class QTimer:
    def __init__(self, parent):
        assert parent is not None
        self.timeout = Signal()

    def start(self, every_ms):
        self.every_ms = every_ms


def install(monkeypatch, name):
    """Put this Qt behind the import of a binding: ``PySide2`` or ``PySide6``."""
    core = types.ModuleType(f"{name}.QtCore")
    core.QTimer = QTimer
    widgets = types.ModuleType(f"{name}.QtWidgets")
    for one in (QWidget, QLabel, QPushButton, QTreeWidget, QTreeWidgetItem, QPlainTextEdit):
        setattr(widgets, one.__name__, one)
    widgets.QVBoxLayout = widgets.QHBoxLayout = Layout
    for module in (types.ModuleType(name), core, widgets):
        monkeypatch.setitem(sys.modules, module.__name__, module)
