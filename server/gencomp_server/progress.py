# SPDX-License-Identifier: Apache-2.0
"""How ``gencomp run`` tells what happens: bars on a terminal, plain lines, or JSON.

Three narrators of one shape. They write to the streams they are given and know no job beyond its
events, nothing of sockets and nothing of pictures.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Protocol, TextIO, TypeGuard

from gencomp_protocol import LayerReady, Progressed, Sent, StateChanged, Warned
from gencomp_protocol.errors import GencompError

_PLAIN_SHARE = 10  # A plain line at every tenth of a stage: enough to see life, short in a log.
_STATES = {
    "receiving": "the server takes the pictures",
    "queued": "every picture is in order; the job waits for its turn",
    "running": "the job runs",
}


class Narrator(Protocol):
    """What is told of a run, in the order in which it happens."""

    def note(self, sentence: str) -> None:
        """Tell a decision that was taken on the artist's behalf."""
        ...

    def expect(self, pictures: int, layers: int) -> None:
        """Tell how many pictures may travel there, and layer frames back."""
        ...

    def event(self, event: Any) -> None:
        """Tell an event of the client."""
        ...

    def done(self, summary: Mapping[str, Any]) -> None:
        """Tell what was delivered and where."""
        ...

    def failed(self, error: GencompError) -> None:
        """Tell why there is nothing."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


def spell_error(error: GencompError) -> str:
    """Return sentence and hint as they stand on standard error."""
    return f"gencomp: {error}\n"


def spell_summary(summary: Mapping[str, Any]) -> str:
    """Return the closing lines: each layer's folder, the sheet and the manifest."""
    lines = [f"{name}  {pattern}" for name, pattern in summary["layers"].items()]
    lines += [f"contact sheet  {summary['contact_sheet']}"] if summary["contact_sheet"] else []
    lines += [f"manifest  {summary['manifest']}"]
    lines += [f"checked  {summary['checked']}"] if summary.get("checked") else []
    return "\n".join(lines) + "\n"


def spell_seconds(seconds: float) -> str:
    """Spell a duration: ``4 s``, ``3 min 20 s``."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def is_worth_telling(eta_s: float | None) -> TypeGuard[float]:
    """Tell whether a stage takes long enough yet for its end to be told."""
    return eta_s is not None and eta_s >= 1.0


class JsonNarrator:
    """One JSON object a line on standard output; a failure also as a sentence on the other."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err

    def _write(self, event: str, **fields: Any) -> None:
        self._out.write(json.dumps({"event": event, **fields}, default=str) + "\n")
        self._out.flush()

    def note(self, sentence: str) -> None:
        """Write ``note``."""
        self._write("note", sentence=sentence)

    def expect(self, pictures: int, layers: int) -> None:
        """Write ``expect``."""
        self._write("expect", pictures=pictures, layers=layers)

    def event(self, event: Any) -> None:
        """Write the event under the name of what happened."""
        names = {
            StateChanged: "state",
            Progressed: "progress",
            Warned: "warning",
            Sent: "sent",
            LayerReady: "layer",
        }
        fields = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
        self._write(names[type(event)], **fields)

    def done(self, summary: Mapping[str, Any]) -> None:
        """Write ``done``."""
        self._write("done", **summary)

    def failed(self, error: GencompError) -> None:
        """Write ``error``, and its sentence on standard error."""
        self._write("error", **error.to_wire())
        self._err.write(spell_error(error))

    def close(self) -> None:
        """Nothing is open."""


class PlainNarrator:
    """Lines for a log: a stage at every tenth, a layer frame at every tenth."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._pictures = 0
        self._layers = 0
        self._sent = 0
        self._ready = 0
        self._told: dict[str, int] = {}

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()

    def _share(self, what: str, step: int, total: int, tail: str = "") -> None:
        """Tell ``step`` of ``total`` where it enters another tenth."""
        share = _PLAIN_SHARE * step // max(total, 1)
        if self._told.get(what) != share:
            self._told[what] = share
            self._line(f"{what} {step}/{total}{tail}")

    def note(self, sentence: str) -> None:
        """Write the sentence."""
        self._line(f"note: {sentence}")

    def expect(self, pictures: int, layers: int) -> None:
        """Keep the totals for the lines to come."""
        self._pictures, self._layers = pictures, layers

    def event(self, event: Any) -> None:
        """Write a line where something new is to be told."""
        if isinstance(event, StateChanged) and event.state in _STATES:
            tail = f", {event.position} in the queue" if event.position > 1 else ""
            if self._told.get("state") != hash((event.state, event.position)):
                self._told["state"] = hash((event.state, event.position))
                self._line(f"{_STATES[event.state]}{tail}")
        elif isinstance(event, Warned):
            self._line(f"warning: {event.sentence}")
        elif isinstance(event, Progressed):
            eta = f", {spell_seconds(event.eta_s)} to go" if is_worth_telling(event.eta_s) else ""
            self._share(event.stage, event.step, event.total, eta)
        elif isinstance(event, Sent):
            self._sent += 1
            self._share("pictures sent", self._sent, self._pictures)
        elif isinstance(event, LayerReady):
            self._ready += 1
            self._share("delivered", self._ready, self._layers)

    def done(self, summary: Mapping[str, Any]) -> None:
        """Write where everything lies."""
        self._line(f"done in {spell_seconds(summary['seconds'])}")
        self._out.write(spell_summary(summary))

    def failed(self, error: GencompError) -> None:
        """Write sentence and hint on standard error."""
        self._err.write(spell_error(error))

    def close(self) -> None:
        """Nothing is open."""


class RichNarrator:
    """Bars on a terminal: one for what is sent, one for each stage, one for the layers."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._err = err
        self._console = Console(file=out, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}", justify="right"),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[eta]}", style="dim"),
            console=self._console,
        )
        self._tasks: dict[str, Any] = {}
        self._totals: dict[str, int] = {}
        self._told_state = ""
        self._bars.start()

    def _advance(self, what: str, step: int | None, total: int, eta: str = "") -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=max(total, 1), eta="")
        task = self._tasks[what]
        if step is None:
            self._bars.update(task, advance=1)
        else:
            self._bars.update(task, completed=step, total=max(total, 1), eta=eta)

    def note(self, sentence: str) -> None:
        """Print the sentence above the bars."""
        self._console.print(f"[cyan]note[/]  {_plain(sentence)}")

    def expect(self, pictures: int, layers: int) -> None:
        """Keep the totals of the bars to come."""
        self._totals = {"pictures": pictures, "layers": layers}

    def event(self, event: Any) -> None:
        """Move a bar, or print a line above them."""
        if isinstance(event, Warned):
            self._console.print(f"[yellow]warning[/]  {_plain(event.sentence)}")
        elif isinstance(event, StateChanged) and event.position > 1:
            if self._told_state != str(event.position):
                self._told_state = str(event.position)
                self._console.print(f"{_STATES['queued']}, {event.position} in the queue")
        elif isinstance(event, Progressed):
            eta = f"{spell_seconds(event.eta_s)} to go" if is_worth_telling(event.eta_s) else ""
            self._advance(event.stage, event.step, event.total, eta)
        elif isinstance(event, Sent):
            self._advance("sent", None, self._totals.get("pictures", 1))
        elif isinstance(event, LayerReady):
            self._advance("delivered", None, self._totals.get("layers", 1))

    def done(self, summary: Mapping[str, Any]) -> None:
        """Stop the bars and print where everything lies."""
        self.close()
        self._console.print(f"[green]done[/] in {spell_seconds(summary['seconds'])}")
        self._console.print(_plain(spell_summary(summary)), end="", soft_wrap=True)

    def failed(self, error: GencompError) -> None:
        """Stop the bars and write sentence and hint on standard error."""
        self.close()
        self._err.write(spell_error(error))

    def close(self) -> None:
        """Stop the bars."""
        self._bars.stop()


def _plain(text: str) -> str:
    """Keep square brackets in a sentence or path from being read as markup."""
    from rich.markup import escape

    return escape(text)


def narrator_for(out: TextIO, err: TextIO, *, as_json: bool) -> Narrator:
    """Return JSON where asked for, bars on a terminal, else plain lines."""
    if as_json:
        return JsonNarrator(out, err)
    return RichNarrator(out, err) if out.isatty() else PlainNarrator(out, err)
