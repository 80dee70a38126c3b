# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Nuke: enough of it to run our gizmos and the Nuke room without Nuke.

What it proves
    Scripts and gizmos, anybody's, are read by a real Tcl interpreter, so quoting, braces and the
    order of commands are what Nuke's own parser sees; whatever is no node is refused. Stack
    wiring, groups, clones, expressions, keys, ``[value …]`` texts, user knobs, flags, link
    targets, callbacks and their order, the thread that touches Nuke and how long it is held, undo
    steps, Writes that are and are not rendered, start-up order, ``-t`` and ``-x`` as processes
    with exit codes. Pixels are computed in 32 bit float by another Python with numpy and
    OpenImageIO, from the same graph.

What it takes for granted
    Proxy mode is as documented: Reads and formats are smaller by the root's scale, or by the share
    of its proxy format, rounded to whole pixels; knobs of pixels reach the renderer scaled, and
    Python and expressions see full-size numbers, but a node's own format and ``sample`` are the
    proxy's; a Write writes its proxy file. A smaller picture is the mean of what it covers. A
    localised Read reads its local copy, whose knob names the original, unless its policy or the
    mode is ``off``. Graph scope variables: ``%{name}`` and ``%{set.name}`` in a text are those of
    the nearest group outwards; the text in which a script keeps them is ours. A Precomp holds the
    nodes of its file; so does a LiveGroup that is published, unless its nodes and an ``end_group``
    follow in the script. A clone that does not say how many inputs it has, has those that a new
    node of its class has.

What it cannot prove
    That a real Nuke accepts every knob name and value: the class table here is ours, written from
    public scripts, and only the classes in it are checked. How Nuke draws anything. Colour
    management (a Read here knows ``raw`` and sRGB for 8-bit files). Pixels outside the format, the
    exact weights of filters between whole pixels (a Blur here is a Blur, not Nuke's). Slopes of
    curves: between keys a value is held or goes straight. Shapes in the text that Nuke itself
    writes for a Roto. Memory, licences. How ``executeInMainThread`` is scheduled between events.
    When Nuke makes and renews local copies. What differs between Nuke 14, 15, 16 and 17. For all
    of that there is ``tests/in_nuke``.

Use: ``app = standin.install(gui=True)``, then ``import nuke`` as in Nuke. ``with app.watch() as
watch`` records what holds the main thread; ``app.answers`` holds what the artist will answer.
"""

from standin.app import App, install
from standin.tclscript import ScriptError

__all__ = ["App", "ScriptError", "install"]
