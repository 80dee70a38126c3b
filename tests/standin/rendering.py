# SPDX-License-Identifier: Apache-2.0
"""Rendering: ``nuke.execute``, what ``-x`` does, and background Nukes as processes."""

import atexit
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

_TERMINAL = Path(__file__).resolve().parent / "terminal.py"


class Rendering:
    """The part of an application that renders."""

    def execute(self, node, start=None, end=None, incr=1, views=None, continueOnError=False):
        """Render a Write, on the main thread, never from inside another rendering."""
        self.check_thread("execute")
        node = self.to_node(node) if isinstance(node, str) else node
        if node is None or node._cls != "Write":
            what = "nothing" if node is None else node.fullName()
            raise RuntimeError(f"{what} cannot be executed")
        if start is None:
            frames = [self.frame]
        elif isinstance(start, (int, float)):
            frames = range(int(start), int(end if end is not None else start) + 1, int(incr))
        else:  # nuke.FrameRanges, nuke.FrameRange
            ranges = start if hasattr(start, "toFrameList") else [start]
            frames = start.toFrameList() if ranges is start else list(start)
        self._render(node, list(frames), views, continueOnError)

    def _render(self, node, frames, views=None, goes_on=False):
        if self.is_executing:
            raise RuntimeError("I'm already executing something else")
        if node._knobs["disable"].value():
            raise RuntimeError(f"{node.fullName()} is disabled")
        chosen = [views] if isinstance(views, str) else views
        chosen = list(chosen or node._knobs["views"]._raw.split() or self.views())
        self.is_executing = True
        try:
            with self.untimed():
                self._render_frames(node, frames, chosen, goes_on)
        finally:
            self.is_executing, self.frame_rendered = False, None

    def _render_frames(self, node, frames, views, goes_on):
        hooks = self.hooks
        hooks.script("beforeRender", node)
        many = "%V" in node._knobs["file"]._raw or "%v" in node._knobs["file"]._raw
        failed = None
        for number, frame in enumerate(frames):
            if self.cancel_render_after is not None and number >= self.cancel_render_after:
                raise RuntimeError("Cancelled")
            self.frame_rendered = frame
            hooks.script("beforeFrameRender", node)
            for view in views if many else views[:1]:
                try:
                    self.pixels.write(node, frame, view)
                except RuntimeError as error:
                    failed = failed or error
                    if not goes_on:
                        raise
            self.rendered.append((node.fullName(), frame))
            hooks.script("afterFrameRender", node)
            hooks.call("renderProgress", node)
        hooks.script("afterRender", node)
        if failed is not None:
            raise failed

    def execute_multiple(self, nodes, ranges, views=None, continueOnError=False):
        for node in nodes:
            for found in ranges:
                first, last, step = (*found, 1)[:3]
                self.execute(node, first, last, step, views, continueOnError)

    def render_all(self, first, last, step=1, names=(), goes_on=False):
        """Render as ``-x`` does: Writes that are not disabled, in groups too, or those named."""
        writes = [n for n in self.everything() if n._cls == "Write"]
        missing = set(names) - {n.fullName() for n in writes}
        if missing:
            raise RuntimeError(f"no Write is called {', '.join(sorted(missing))}")
        active = [n for n in writes if not n._knobs["disable"].value()]
        if names:
            active = [n for n in active if n.fullName() in names]
        for node in sorted(active, key=lambda n: n._knobs["render_order"].value()):
            self._render(node, list(range(int(first), int(last) + 1, int(step))), None, goes_on)
        return len(active)

    # --- other Nukes -----------------------------------------------------------------------------

    @property
    def program(self):
        """A file that starts another stand-in as ``nuke.EXE_PATH`` starts another Nuke."""
        if "_program" not in self.__dict__:
            folder = tempfile.TemporaryDirectory(prefix="nuke-")
            atexit.register(folder.cleanup)
            path = Path(folder.name) / "Nuke"
            own = os.pathsep.join(map(str, self.start_folders))
            path.write_text(
                f"#!/bin/sh\n: ${{NUKE_PATH:={shlex.quote(own)}}}\nexport NUKE_PATH\n"
                f'exec {shlex.quote(sys.executable)} {shlex.quote(str(_TERMINAL))} "$@"\n',
                encoding="utf-8",
            )
            path.chmod(0o755)
            self._program, self._program_folder = path.as_posix(), folder
        return self._program

    def execute_background(self, exe, nodes, ranges, views=(), limits=None, **_):
        """Render in another Nuke, from a saved copy of the script; return the number of the job.

        The processes are in ``background``; a test waits for them.
        """
        folder = tempfile.TemporaryDirectory(prefix="nuke-background-")
        atexit.register(folder.cleanup)
        script = Path(folder.name) / "script.nk"
        name = self.root._knobs["name"]._raw
        script.write_text(self.script_text(), encoding="utf-8")
        environ = {**os.environ, "GENCOMP_TEST_SCRIPT_NAME": name}
        words = [exe, "-x"]
        for found in ranges:
            words += ["-F", str(found)]
        words += ["-X", ",".join(node.fullName() for node in nodes), str(script)]
        child = subprocess.Popen(
            words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.background.append(child)
        return len(self.background)
