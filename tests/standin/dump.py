# SPDX-License-Identifier: Apache-2.0
"""From nodes to a script, and to plain data that two graphs can be compared by."""

import heapq

from standin import classes
from standin.tclscript import quote

_SILENT = (20, 22, 26, 32)  # Codes of knobs that hold no value: tabs, buttons, texts.


def dump(app, nodes):
    """Write nodes as a script."""
    lines = []
    for name, channels in sorted(app.layers.items()):
        if channels != app.builtin_layers.get(name):
            lines.append(f"add_layer {{{' '.join(map(quote, (name, *channels)))}}}")
    _dump_nodes(nodes, lines, "", {})
    return "\n".join(lines) + "\n"


def dump_script(app):
    """Write the whole script, with its root."""
    notes = [" ".join((name, *map(_spell_note, words))) for name, *words in app.notes]
    lines = [*notes, "Root {", " inputs 0", *knob_lines(app.root, " "), "}"]
    return "\n".join(lines) + "\n" + dump(app, app.root._children)


def _spell_note(word):
    """Spell a word of a command that is no node: braced, where that gives the same word."""
    plain = word.count("{") == word.count("}") and "\\" not in word
    return "{" + word + "}" if plain and word.find("}") >= word.find("{") else quote(word)


def _dump_nodes(nodes, lines, indent, names):
    """Write nodes so that each comes after what it needs, otherwise in their order."""
    members = {id(node): place for place, node in enumerate(nodes)}
    waits, followers = {}, {}
    for node in nodes:
        needed = {id(n) for n in (*node._inputs, node._clone_of) if n is not None}
        needed = {n for n in needed if n in members and n != id(node)}
        waits[id(node)] = len(needed)
        for one in needed:
            followers.setdefault(one, []).append(node)
    ready = [members[id(node)] for node in nodes if not waits[id(node)]]
    heapq.heapify(ready)
    done = set()
    while len(done) < len(nodes):
        if not ready:  # A circle: its first node comes without the input that closes it.
            ready = [next(p for p, node in enumerate(nodes) if id(node) not in done)]
        node = nodes[heapq.heappop(ready)]
        if id(node) in done:
            continue
        done.add(id(node))
        _dump_node(node, lines, indent, names)
        for other in followers.get(id(node), ()):
            waits[id(other)] -= 1
            if not waits[id(other)]:
                heapq.heappush(ready, members[id(other)])


def _dump_node(node, lines, indent, names):
    for source in reversed(node._inputs):
        name = names.get(id(source))
        lines.append(f"{indent}push {'$' + name if name else '0'}")
    cls = node._spelt
    if node._clone_of is not None and id(node._clone_of) in names:
        cls = f"clone ${names[id(node._clone_of)]}"
    lines.append(f"{indent}{cls} {{")
    masks = [int(part) for part in node._plus.split("+") if part.isdigit()]
    plus = node._plus if masks and sum(masks) <= len(node._inputs) else ""
    count = len(node._inputs) - (sum(masks) if plus else 0)
    lines.append(f"{indent} inputs {count}{'+' + plus if plus else ''}")
    lines.extend(knob_lines(node, indent + " "))
    lines.append(f"{indent}}}")
    if node._cls in classes.GROUPS and node._clone_of is None and not node._is_elsewhere:
        _dump_nodes(node._children, lines, indent + " ", names)  # Tcl's names are one for all.
        lines.append(f"{indent}end_group")
    names[id(node)] = f"N{len(names)}"
    lines.append(f"{indent}set {names[id(node)]} [stack 0]")


def knob_lines(node, indent):
    """Yield the lines of a node's body that say its knobs; of a clone, what it has of its own."""
    original = {} if node._clone_of is None else node._clone_of._knobs
    for key, knob in node._knobs.touched():
        user, its = knob._user, original.get(key)
        if its is not None and key != "name" and _is_same(knob, its):
            continue
        if user is not None and (its is None or its._user is not user):
            yield f"{indent}addUserKnob {{{user.spell(knob._items)}}}"
        if is_written(knob):
            yield f"{indent}{quote(knob._name)} {quote(knob._raw)}"


def _is_same(knob, its):
    """Tell whether a clone's knob says what its original's says."""
    words = (knob._user, knob._raw, knob._given)
    return its is knob or words == (its._user, its._raw, its._given)


def is_written(knob):
    """Tell whether a script says a knob's value."""
    user = knob._user
    if user is not None and not (user.is_saved and (knob._given or user.code not in _SILENT)):
        return False
    return knob._raw != knob._default or knob._given or (user is not None and bool(knob._raw))


def fingerprint(group):
    """Return a graph as plain data, to compare two of them."""
    found = []
    for node in group._children:
        knobs = {
            name: (
                k._raw if is_written(k) else None,
                None if k._user is None else k._user.spell(k._items),
            )
            for name, k in node._knobs.touched()
            if is_written(k) or k._user is not None
        }
        inputs = [None if n is None else n._knobs["name"]._raw for n in node._inputs]
        clone = None if node._clone_of is None else node._clone_of._knobs["name"]._raw
        about = (node._spelt, node._plus, clone)
        found.append((node._knobs["name"]._raw, about, knobs, inputs, fingerprint(node)))
    return sorted(found, key=lambda entry: entry[0])


def fingerprint_script(app):
    """Return a whole script as plain data: its nodes, root, layers, version and layout."""
    root = {name: k._raw for name, k in app.root._knobs.touched() if is_written(k)}
    users = [k._user.spell(k._items) for _, k in app.root._knobs.touched() if k._user is not None]
    return fingerprint(app.root), root, users, dict(app.layers), list(app.notes)
