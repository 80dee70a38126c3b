# SPDX-License-Identifier: Apache-2.0
"""The Jobs panel: what a row says, what its buttons do, and the one door to Qt."""

import os
import sys
from types import SimpleNamespace

import pytest

from fakes import qt as fake_qt
from fakes.server import FakeServer
from gencomp_nuke import jobsview, qt
from gencomp_nuke.doing import Doing, after, planned, saying
from gencomp_nuke.jobspanel import Model
from gencomp_nuke.lookout import Lookout, Seen, queue_of, see
from gencomp_protocol import LayerReady, Progressed, StateChanged
from gencomp_protocol.errors import Cancelled, DiskFull


class Gizmo:
    """A node that knows its name, until it is deleted."""

    def __init__(self, name):
        self.name, self.shown = name, 0

    def fullName(self):
        if not self.name:
            raise ValueError("A PythonObject is not attached to a node")
        return self.name

    def showControlPanel(self):
        self.shown += 1


def run(identity="a1", name="Omnimatte1", error=None, over=False, **doing):
    """Return what the panel needs of a run."""
    made = SimpleNamespace(
        identity=identity, gizmo=Gizmo(name), error=error, is_over=over, doing=Doing(**doing)
    )
    made.is_cancelled = False
    made.cancel = lambda: setattr(made, "is_cancelled", True)
    return made


def model(*runs, seen=None):
    """Return a model of those runs that has nothing to look up."""
    return Model(lambda: runs, Lookout({}, look=lambda environ: seen or Seen()))


def cells(*runs):
    """Return the cells of the only row."""
    (row,) = model(*runs).rows()
    return row.cells


# --- rows ----------------------------------------------------------------------------------------


def test_a_run_that_works_shows_stage_percent_time_left_and_memory():
    shown = run(
        sentence="sample: 12 of 50.",
        stage="sample",
        step=12,
        total=50,
        left_s=200.0,
        memory_bytes=14_200_000_000,
    )
    assert cells(shown) == ("Omnimatte1", "running", "sample 24 %", "3 min", "", "14.2 GB")


def test_a_run_that_stands_in_the_servers_queue_shows_its_place():
    assert cells(run(sentence="In the queue.", place=3))[1:5] == ("queued", "", "", "3")


def test_a_run_that_waits_for_its_turn_says_so():
    assert cells(run())[1] == "waiting"


def test_frames_that_are_here_are_counted():
    assert cells(run(sentence="x", stage="finish", frames=7))[2] == "7 frames are here"


@pytest.mark.parametrize(
    ("error", "state", "sentence"),
    [
        (None, "done", "The server is ready."),
        (Cancelled("The job was cancelled."), "cancelled", "The job was cancelled."),
        (DiskFull("No room.", hint="Make some."), "failed", "No room. Make some."),
    ],
)
def test_a_run_that_has_ended_says_how(error, state, sentence):
    (row,) = model(run(error=error, over=True, sentence="The server is ready.", left_s=3.0)).rows()
    assert (row.state, row.sentence) == (state, sentence)
    assert row.cells[2:5] == ("", "", "")


def test_the_newest_run_is_on_top_and_one_of_a_deleted_node_is_still_there():
    rows = model(run("a"), run("b", name="")).rows()
    assert [row.cells[0] for row in rows] == ["(deleted)", "Omnimatte1"]


def test_what_has_ended_can_be_hidden_and_a_later_run_shows():
    runs = [run("a", over=True), run("b")]
    shown = Model(lambda: tuple(runs), Lookout({}, look=lambda environ: Seen()))
    shown.hide_ended()
    runs.append(run("c", over=True))
    assert [row.identity for row in shown.rows()] == ["c", "b"]


def test_cancel_stops_the_run_of_that_node_and_no_other():
    first, second = run("a"), run("b")
    assert model(first, second).cancel("b") is True
    assert (first.is_cancelled, second.is_cancelled) == (False, True)
    assert model(run("a", over=True)).cancel("a") is False


def test_events_become_what_a_run_is_doing():
    doing = saying(Doing(), "The server is ready.")
    doing = planned(doing, {"stage_bytes": {"text": 3, "sample": 9}, "memory_bytes": 50})
    doing = after(doing, StateChanged("j", "queued", 2))
    assert (doing.place, doing.memory_bytes) == (2, 9)
    doing = after(doing, Progressed("j", "sample", 1, 4, 30.0))
    assert (doing.place, doing.percent, doing.left_s) == (0, 25, 30.0)
    assert after(doing, LayerReady("j", "a", 1001, None)).frames == 1
    assert doing.sentence == "The server is ready."


def test_a_plan_for_a_processor_asks_for_no_gpu_memory():
    assert planned(Doing(), {"on_cpu": True, "stage_bytes": {"sample": 9}}).memory_bytes == 0


def test_a_run_of_the_session_tells_the_panel_how_it_stands(app, comp, server):
    from gencomp_nuke import callbacks

    assert callbacks.runs() == ()
    gizmo = comp(app)
    server.goes_on.clear()
    callbacks.generate(gizmo)
    shown = Model(callbacks.runs, Lookout({}, look=lambda environ: Seen()))
    app.process_events(lambda: "solve" in shown.rows()[0].cells[2])
    assert shown.rows()[0].cells == ("Omnimatte1", "running", "solve 33 %", "65 s", "", "")
    shown.cancel(shown.rows()[0].identity)
    app.process_events(lambda: shown.rows()[0].is_over)
    assert shown.rows()[0].state == "cancelled"


# --- what is looked up ---------------------------------------------------------------------------


def test_looking_never_waits_and_happens_again_after_a_while():
    looks = []
    lookout = Lookout({}, look=lambda environ: looks.append(1) or Seen(log="x"))
    for now_s in (10.0, 11.0, 12.9, 13.1):
        lookout.refresh(now_s)
        lookout.wait()
    assert len(looks) == 2
    assert lookout.latest.log == "x"


def test_a_look_that_fails_leaves_what_was_seen():
    lookout = Lookout({}, look=lambda environ: 1 / 0)
    lookout.refresh(10.0)
    lookout.wait()
    assert lookout.latest == Seen()


def test_a_wrong_setting_and_the_end_of_the_log_are_seen(app, home):
    home.mkdir(exist_ok=True)
    (home / "nuke.json").write_text('{"sever_command": "x"}', encoding="utf-8")
    (home / "nuke.log").write_text("first\n" + 400 * (59 * "x" + "\n") + "last\n", encoding="utf-8")
    seen = see(os.environ)
    assert seen.notices[0] == (
        f"settings: There is no setting 'sever_command' ({home / 'nuke.json'}:1). "
        "Did you mean 'server_command'?"
    )
    assert seen.log.endswith("last\n")
    assert not seen.log.startswith("first")


def test_jobs_of_other_sessions_stand_in_the_servers_queue(monkeypatch, home, tmp_path):
    jobs = [
        {"system": "dynvfx", "frames": "1-9", "state": "queued", "position": 1, "client": "b"},
        {"system": "omnimatte", "frames": "7", "state": "done", "position": 0, "client": "c"},
        {"system": "omnimatte", "frames": "1-5", "state": "running", "position": 0, "client": "a"},
    ]
    monkeypatch.setattr("gencomp_protocol.Client.jobs", lambda client: jobs)
    with FakeServer(tmp_path, home):
        found = queue_of(os.environ)
    assert found == (
        "omnimatte 1-5: running, for a",
        "dynvfx 1-9: queued, place 1, for b",
    )


# --- the door to Qt ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "bindings", "chosen"),
    [
        (14, ("PySide2",), "PySide2"),
        (15, ("PySide2", "PySide6"), "PySide2"),
        (16, ("PySide2", "PySide6"), "PySide6"),
        (17, ("PySide6",), "PySide6"),
    ],
)
def test_every_nuke_gets_its_own_qt(app, monkeypatch, version, bindings, chosen):
    monkeypatch.setattr(sys.modules["nuke"], "NUKE_VERSION_MAJOR", version)
    for name in ("PySide2", "PySide6"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in bindings:
        fake_qt.install(monkeypatch, name)
    assert qt.load().name == chosen


def test_without_an_interface_there_is_no_qt(terminal, monkeypatch):
    fake_qt.install(monkeypatch, "PySide2")
    assert qt.load() is None


def test_a_nuke_whose_qt_does_not_load_says_that_there_is_no_panel(app, monkeypatch):
    for name in ("PySide2", "PySide6"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeError, match="there is no Jobs panel"):
        jobsview.make()


# --- the panel as Nuke shows it ------------------------------------------------------------------


def view(monkeypatch, shown):
    fake_qt.install(monkeypatch, "PySide2")
    made = jobsview.View(qt.load(), shown)
    shown._lookout.wait()
    made.refresh()
    return made


def test_the_panel_is_known_to_nuke_and_makes_its_widget(app, monkeypatch):
    fake_qt.install(monkeypatch, "PySide2")
    maker = sys.modules["nukescripts"].registered["com.gencomp.jobs"]
    widget = eval(maker, {})()  # As Nuke makes it, in a scope that knows nothing of ours.
    assert widget.gencomp_view.table.items == []
    assert widget.gencomp_view.timer.every_ms == 500


def test_the_panel_shows_rows_notices_queue_and_log(app, monkeypatch):
    seen = Seen(notices=("server: none.", "settings: bad."), queue=("dynvfx 1: queued",), log="L")
    made = view(monkeypatch, model(run(sentence="Solving."), seen=seen))
    assert [made.table.items[0].text(i) for i in range(2)] == ["Omnimatte1", "running"]
    assert made.notices.text() == "server: none.\nsettings: bad."
    assert made.queue.text() == "On the server:\ndynvfx 1: queued"
    assert made.log.toPlainText() == "L"
    assert made.sentence.text() == "Solving."


def test_a_panel_that_nobody_sees_asks_nothing(app, monkeypatch):
    asked = []
    shown = Model(lambda: asked.append(1) or (), Lookout({}, look=lambda environ: Seen()))
    made = view(monkeypatch, shown)
    made.widget.setVisible(False)
    before = len(asked)
    made.timer.timeout.emit()
    assert len(asked) == before
    made.widget.setVisible(True)
    made.timer.timeout.emit()
    assert len(asked) == before + 1


def test_what_has_not_changed_is_not_written_again(app, monkeypatch):
    doing = run(sentence="x")
    made = view(monkeypatch, model(doing))
    doing.doing = saying(doing.doing, "y")
    made.refresh()
    assert made.table.items[0].writes == 0
    assert made.sentence.text() == "y"


def test_the_buttons_act_on_the_chosen_row(app, monkeypatch):
    first, second = run("a", "One"), run("b", "Two")
    made = view(monkeypatch, model(first, second))
    made.cancel()
    assert (first.is_cancelled, second.is_cancelled) == (False, False)
    made.table.current = made.table.items[1]
    made.cancel()
    made.show_node()
    assert (first.is_cancelled, first.gizmo.shown, second.is_cancelled) == (True, 1, False)


@pytest.mark.parametrize(("binding", "version"), [("PySide2", 15), ("PySide6", 16)])
def test_the_panel_lives_in_a_real_qt(app, monkeypatch, binding, version):
    widgets = pytest.importorskip(f"{binding}.QtWidgets")
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setattr(sys.modules["nuke"], "NUKE_VERSION_MAJOR", version)
    real = widgets.QApplication.instance() or widgets.QApplication([])
    shown = model(run(sentence="Solving.", stage="solve", step=1, total=2), seen=Seen(log="line"))
    made = jobsview.View(qt.load(), shown)
    made.widget.show()
    shown._lookout.wait()
    made.refresh_if_seen()
    real.processEvents()
    assert made.table.topLevelItem(0).text(2) == "solve 50 %"
    assert made.log.toPlainText() == "line"
    buttons = {one.text(): one for one in made.widget.findChildren(widgets.QPushButton)}
    buttons["Cancel"].click()
    assert shown._runs()[0].is_cancelled is True
