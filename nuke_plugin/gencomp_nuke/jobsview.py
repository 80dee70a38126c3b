# SPDX-License-Identifier: Apache-2.0
"""The Jobs panel as Nuke shows it: a table, what is wrong, the server's queue, the log.

Only widgets and their wiring; what stands in them and what a button does is ``jobspanel.Model``.
"""

from typing import Any, Optional

import nuke
from gencomp_nuke import callbacks, checking, qt
from gencomp_nuke.jobspanel import COLUMNS, Model, Row
from gencomp_nuke.lookout import Lookout

PANEL = "com.gencomp.jobs"
TITLE = "gencomp Jobs"
# What Nuke evaluates to make the panel; its own scope knows nothing of ours.
_MAKER = "__import__('gencomp_nuke.jobsview', fromlist=['make']).make"
_EVERY_MS = 500


def register() -> None:
    """Tell Nuke of the panel, so that it is in the menu of panes and in saved layouts.

    Raises:
        ImportError: This Nuke has no ``nukescripts``.
    """
    import nukescripts

    nukescripts.panels.registerWidgetAsPanel(_MAKER, TITLE, PANEL)


def open_panel() -> None:
    """Show the panel beside the properties: a command of the menu."""
    import nukescripts

    panel = nukescripts.panels.registerWidgetAsPanel(_MAKER, TITLE, PANEL, True)
    panel.addToPane(nuke.getPaneFor("Properties.1"))


def make() -> Any:
    """Return the panel's widget, which lives as long as Nuke keeps it.

    Raises:
        RuntimeError: There is no Qt, so there is no panel either.
    """
    found = qt.load()
    if found is None:
        raise RuntimeError("This Nuke has no PySide that can be loaded, so there is no Jobs panel.")
    view = View(found, Model(callbacks.runs, Lookout()))
    view.widget.gencomp_view = view  # Qt keeps the widget; this keeps what is behind it.
    return view.widget


class View:
    """The widgets.

    Args:
        found: Qt.
        model: What they show.

    Attributes:
        widget: The whole of them.
    """

    def __init__(self, found: qt.Qt, model: Model) -> None:
        self._qt, self._model = found, model
        self._rows: tuple[Row, ...] = ()
        widgets = found.widgets
        self.widget = widgets.QWidget()
        self.notices, self.queue, self.sentence = (self._label() for _ in range(3))
        self.table = widgets.QTreeWidget()
        self.table.setColumnCount(len(COLUMNS))
        self.table.setHeaderLabels(list(COLUMNS))
        self.table.setRootIsDecorated(False)
        self.table.currentItemChanged.connect(lambda *_: self._tell())
        self.log = widgets.QPlainTextEdit()
        self.log.setReadOnly(True)
        self.buttons = {
            "Cancel": self.cancel,
            "Show node": self.show_node,
            "Hide ended": self.hide_ended,
            "Check set-up": checking.check_here,
        }
        self._lay_out()
        self.timer = found.core.QTimer(self.widget)
        self.timer.timeout.connect(self.refresh_if_seen)
        self.timer.start(_EVERY_MS)
        self.refresh()

    def _label(self) -> Any:
        label = self._qt.widgets.QLabel()
        label.setWordWrap(True)
        label.setVisible(False)
        return label

    def _lay_out(self) -> None:
        widgets = self._qt.widgets
        column = widgets.QVBoxLayout(self.widget)
        column.addWidget(self.notices)
        column.addWidget(self.table)
        column.addWidget(self.sentence)
        row = widgets.QHBoxLayout()
        for text, action in self.buttons.items():
            button = widgets.QPushButton(text)
            button.clicked.connect(lambda *_, action=action: action())
            row.addWidget(button)
        column.addLayout(row)
        column.addWidget(self.queue)
        column.addWidget(self.log)

    # --- what the buttons do ---------------------------------------------------------------------

    def cancel(self) -> None:
        """Stop the run of the chosen row."""
        row = self._chosen()
        if row is not None:
            self._model.cancel(row.identity)

    def show_node(self) -> None:
        """Open the panel of the chosen row's node."""
        row = self._chosen()
        if row is not None:
            self._model.show_node(row.identity)

    def hide_ended(self) -> None:
        """Leave out what has ended."""
        self._model.hide_ended()
        self.refresh()

    # --- showing ---------------------------------------------------------------------------------

    def refresh_if_seen(self) -> None:
        """Show what is, where somebody can see it."""
        if self.widget.isVisible():
            self.refresh()

    def refresh(self) -> None:
        """Show what is; touches only what has changed, so that a selection stays."""
        rows, seen = self._model.rows(), self._model.seen()
        if len(rows) != len(self._rows):
            self.table.clear()
            for row in rows:
                self.table.addTopLevelItem(self._qt.widgets.QTreeWidgetItem(list(row.cells)))
        for index, row in enumerate(rows):
            item = self.table.topLevelItem(index)
            for place, text in enumerate(row.cells):
                if item.text(place) != text:
                    item.setText(place, text)
        self._rows = rows
        self._tell()
        self._say(self.notices, "\n".join(seen.notices))
        self._say(self.queue, "\n".join(("On the server:", *seen.queue)) if seen.queue else "")
        if self.log.toPlainText() != seen.log:
            self.log.setPlainText(seen.log)
            bar = self.log.verticalScrollBar()
            bar.setValue(bar.maximum())

    def _chosen(self) -> "Optional[Row]":
        """Return the chosen row; the only one needs no choosing."""
        index = int(self.table.indexOfTopLevelItem(self.table.currentItem()))
        if 0 <= index < len(self._rows):
            return self._rows[index]
        return self._rows[0] if len(self._rows) == 1 else None

    def _tell(self) -> None:
        """Show the sentence of the chosen row."""
        row = self._chosen()
        self._say(self.sentence, "" if row is None else row.sentence)

    @staticmethod
    def _say(label: Any, text: str) -> None:
        if label.text() != text:
            label.setText(text)
        label.setVisible(bool(text))
