# SPDX-License-Identifier: Apache-2.0
"""Scripts made by chance, from a seed: rich ones with what they mean, and hostile ones.

The words of a rich script are spelt here in each way that Tcl knows, without the stand-in's own
quoting, so that reading is compared with something else than writing.
"""

import random
from dataclasses import dataclass, field

_LETTERS = "aZ09_. -+*/%~|&?'=<>,;:@!^()#é日😀“”\\\"[]{}$\n\t"
_CLASS_WORDS = (
    "Dot Blur Merge2 Read bm_Glow 3DE4_Lens OFXuk.co.x.y_v2 My.gizmo Keyer StickyNote Viewer ap-Fx"
)
_CLASSES = _CLASS_WORDS.split()
_CODES = (
    *range(1, 16), 17, 18, 19, 20, 22, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 37, 38, 39,
    40, 41, 42, 43, 44, 45, 47, 49, 51, 52, 53, 54, 57, 61, 63, 64, 68, 72, 78, 80, 81, 83, 84, 85,
    86, 89, 90,
)  # fmt: skip
_FLAGS = ("+STARTLINE", "-STARTLINE", "+HIDDEN", "+INVISIBLE", "+DISABLED", "+ENDLINE", "+NOANIM")
_CURVES = (
    "{curve x1 0 x20 1}",
    "{curve i x-3 0.5 s0 x1e2 1 t-0.25 u1 x200 3}",
    "{curve K x1001 1 x1002 0 L x1010 4 C x1020 5 R x1 2}",
    "{{curve x1 1 2 3} 4 {parent.x*2}}",
    '{{"a > b ? c : d"}}',
    "{parent.mix i}",
    "{{frame+1} {root.width/2} x.y(frame-1)}",
)
_COMMANDS = (
    "exec touch CANARY",
    "open CANARY w",
    "source CANARY",
    "socket localhost 9",
    "set x [exec touch CANARY]",
    "eval {exec touch CANARY}",
    "::exec touch CANARY",
    "exec {touch CANARY}",
    "interp invokehidden {} exec {touch CANARY}",
    "namespace eval :: {exec touch CANARY}",
    "uplevel #0 {exec touch CANARY}",
    "proc Dot {a} {exec touch CANARY}",
    "rename set exec",
    "load CANARY.so",
    "while 1 {}",
    "for {set i 0} {1} {incr i} {}",
    "foreach x {1 2} {exec touch CANARY}",
    "if 1 {exec touch CANARY}",
    "after 1 {exec touch CANARY}",
    "trace add variable x write {exec touch CANARY}",
    "vwait forever",
    "subst {[exec touch CANARY]}",
    "apply {{} {exec touch CANARY}}",
    "set e exec\n$e {touch CANARY}",
    "[set e exec] {touch CANARY}",
    "unknown exec {touch CANARY}",
    "package require Tk",
    "file delete CANARY",
    "cd /",
    "exit 3",
)


@dataclass
class Made:
    """A node that a script was made to hold."""

    name: str
    cls: str
    inputs: list
    knobs: dict = field(default_factory=dict)
    users: list = field(default_factory=list)
    inner: list = field(default_factory=list)


def rich(seed, nodes=12):
    """Return a well-formed script and the nodes it holds."""
    maker = _Maker(random.Random(seed))
    made = maker.group("", nodes, 0, [])
    head = maker.chance.choice(["", "#! /usr/local/Nuke15.1 -nx\n# a { comment\n"])
    head += maker.chance.choice(["", "version 15.1 v5\n"])
    head += 'add_layer {crypto crypto.red "crypto.a b"}\n'
    head += 'define_window_layout_xml {<?xml version="1.0"?>\n<layout><a b="1"/></layout>\n}\n'
    return head + "".join(maker.lines), made


def hostile(seed, canary):
    """Return a script that is cut, mixed up, and tries what a script must not."""
    chance = random.Random(seed)
    text, _ = rich(seed, 5)
    command = chance.choice(_COMMANDS).replace("CANARY", canary)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(text))
        what = chance.choice(("cut", "insert", "letter", "repeat"))
        if what == "cut":
            text = text[:place] + text[place + chance.randint(1, 30) :]
        elif what == "letter":
            text = text[:place] + chance.choice('{}[]"\\$;\n') + text[place:]
        elif what == "repeat":
            text = text[:place] + text[max(0, place - 40) : place] * 5 + text[place:]
        else:
            text = text[:place] + f"\n{command}\n" + text[place:]
    return f"{text}\n{command}\n"


class _Maker:
    def __init__(self, chance):
        self.chance, self.lines, self.count, self.variables = chance, [], 0, 0

    def group(self, indent, nodes, depth, stack):
        """Write the nodes of a group; ``stack`` holds the names on Nuke's stack."""
        made, tokens, clones = [], {}, {}
        for _ in range(nodes):
            node = self._node(indent, depth, stack, clones)
            made.append(node)
            if self.chance.random() < 0.5:
                variable = f"N{self.variables}"
                self.variables += 1
                self.lines.append(f"{indent}set {variable} [stack 0]\n")
                tokens[variable] = node.name
                if node.cls not in ("Group", "Gizmo", "LiveGroup"):
                    clones[variable] = node
            if tokens and self.chance.random() < 0.5:
                variable = self.chance.choice(list(tokens))
                self.lines.append(f"{indent}push ${variable}\n")
                stack.append(tokens[variable])
            elif self.chance.random() < 0.2:
                self.lines.append(f"{indent}push {self.chance.choice(['0', '$cut_paste_input'])}\n")
                stack.append(None)
        return made

    def _node(self, indent, depth, stack, clones):
        cls = self.chance.choice(_CLASSES)
        if depth < 3 and self.chance.random() < 0.25:
            cls = self.chance.choice(("Group", "Gizmo", "LiveGroup"))
        original = None
        if clones and self.chance.random() < 0.2:
            variable = self.chance.choice(list(clones))
            original = clones[variable]
            cls = original.cls
        self.count += 1
        count = self.chance.randint(0, 3)
        taken = [stack.pop() if stack else None for _ in range(count)]
        node = Made(f"Node{self.count}x", cls, taken)
        self.lines.append(f"{indent}{cls if original is None else f'clone ${variable}'} {{\n")
        plus = self.chance.random() < 0.3 and count
        self.lines.append(
            f"{indent} inputs {count - 1}+1\n" if plus else f"{indent} inputs {count}\n"
        )
        self._body(indent, node, original)
        self.lines.append(f"{indent} name {node.name}\n{indent}}}\n")
        if cls in ("Group", "Gizmo", "LiveGroup") and original is None:
            node.inner = self.group(indent + " ", self.chance.randint(0, 4), depth + 1, [])
            self.lines.append(f"{indent}end_group\n")
        stack.append(node.name)
        return node

    def _body(self, indent, node, original):
        if original is not None:
            node.knobs, node.users = dict(original.knobs), list(original.users)
        for index in range(self.chance.randint(0, 3) if original is None else 0):
            name = self.chance.choice((f"k{index}", f"a knob {index}", f"ä{index}"))
            code = self.chance.choice(_CODES)
            self.lines.append(f"{indent} addUserKnob {{{self._user(code, name)}}}\n")
            node.users.append((code, name))
            if code not in (20, 22, 25, 26, 27, 41, 57):
                self._knob(indent, node, name)
        for _ in range(self.chance.randint(0, 3)):
            self._knob(
                indent, node, self.chance.choice(("label", "zz top", "value", "help", "x.y"))
            )

    def _knob(self, indent, node, name):
        word = self.chance.choice(_CURVES) if self.chance.random() < 0.3 else self._word()
        node.knobs[name] = word
        self.lines.append(f"{indent} {self._spell(name)} {self._spell(word)}\n")

    def _user(self, code, name):
        words = [str(code), self._spell(name)]
        for key in self.chance.sample("ltTMRn", self.chance.randint(0, 4)):
            if key == "M":
                items = [self._spell(self._word() or "x") for _ in range(3)]
                words.append("M {" + " ".join(items) + "}")
            elif key == "R":
                words.append("R -1 1.5")
            elif key == "n":
                words.append(f"n {self.chance.choice((1, 2))}")
            else:
                words.append(f"{key} {self._spell(self._word())}")
            if self.chance.random() < 0.4:
                words.append(self.chance.choice(_FLAGS))
        return " ".join(words)

    def _word(self):
        return "".join(self.chance.choice(_LETTERS) for _ in range(self.chance.randint(0, 14)))

    def _spell(self, word):
        """Spell a word bare, braced or quoted, as far as it can be."""
        ways = [self._quoted]
        if word and all(letter.isalnum() or letter in "_." for letter in word):
            ways.append(lambda w: w)
        if "\\" not in word and _is_balanced(word):
            ways.append(lambda w: "{" + w + "}")
        return self.chance.choice(ways)(word)

    def _quoted(self, word):
        found = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
        for letter in "[]{}":
            found = found.replace(letter, "\\" + letter)
        return '"' + (found.replace("\n", "\\n") if self.chance.random() < 0.5 else found) + '"'


def _is_balanced(word):
    depth = 0
    for letter in word:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth < 0:
            return False
    return depth == 0
