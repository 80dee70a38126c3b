# SPDX-License-Identifier: Apache-2.0
"""Steps of the classes that change or make samples; see ``planning``."""

from standin import nukemath
from standin.lookup import numbers_in


def _coloured(op, **knobs):
    """Return the function of a class that changes chosen channels by some knobs."""

    def step(planner, node, frame):
        named = {key: node._knobs[name]._numbers(frame) for key, name in knobs.items()}
        channels = planner.channels(node, node._knobs["channels"]._raw)
        return planner.add(op, a=planner.source(node, frame), channels=channels, **named)

    return step


def _expression(planner, node, frame):
    knobs = node._knobs
    temps = [(knobs[f"temp_name{i}"]._raw, knobs[f"temp_expr{i}"]._raw) for i in range(4)]
    temps = [(name, text) for name, text in temps if name and text]
    lines = [(knobs[f"channel{i}"]._raw, knobs[f"expr{i}"]._raw) for i in range(4)]
    lines = [(planner.channels(node, word), text) for word, text in lines if text]
    texts = [text for _, text in (*temps, *lines)]
    made = {name for name, _ in temps}
    is_merge = node._cls == "MergeExpression"
    return planner.add(
        "expression",
        a=planner.source(node, frame),
        other=planner.source(node, frame, 1) if is_merge else None,
        temps=temps,
        expressions=lines,
        values=numbers_in(node, [text for text in texts if text], made, frame),
        frame=frame,
    )


def _grade(planner, node, frame):
    knobs = node._knobs
    names = ("blackpoint", "whitepoint", "black", "white", "multiply", "add", "gamma")
    if knobs["reverse"]._number(frame):
        raise RuntimeError("the stand-in computes no reversed Grade")
    return planner.add(
        "grade",
        a=planner.source(node, frame),
        channels=planner.channels(node, knobs["channels"]._raw),
        **{name: knobs[name]._numbers(frame) for name in names},
        **{name: bool(knobs[name]._number(frame)) for name in ("black_clamp", "white_clamp")},
    )


def _clamp(planner, node, frame):
    knobs = node._knobs
    return planner.add(
        "clamp",
        a=planner.source(node, frame),
        channels=planner.channels(node, knobs["channels"]._raw),
        low=knobs["minimum"]._numbers(frame),
        high=knobs["maximum"]._numbers(frame),
        low_on=bool(knobs["minimum_enable"]._number(frame)),
        high_on=bool(knobs["maximum_enable"]._number(frame)),
    )


def _premult(op):
    def step(planner, node, frame):
        return planner.add(
            op,
            a=planner.source(node, frame),
            channels=planner.channels(node, node._knobs["channels"]._raw),
            alpha=planner.channel(node, node._knobs["alpha"]._raw),
        )

    return step


def _transform(planner, node, frame):
    knobs = node._knobs
    matrix = nukemath.of_knobs(node, frame)
    inverse = planner.proxy.plane(nukemath.inverse_of_plane(matrix))
    forward = planner.proxy.plane(_plane(matrix))
    if "invert_matrix" in knobs and knobs["invert_matrix"]._number(frame):
        inverse, forward = forward, inverse
    return planner.add(
        "transform",
        a=planner.source(node, frame),
        inverse=[int(n) if n == int(n) else n for n in inverse],
        forward=forward,
        filter=knobs["filter"]._value_at(frame).capitalize(),
        black_outside=bool(knobs["black_outside"]._number(frame)),
    )


def _plane(matrix):
    (a, b, _, c), (d, e, _, f) = matrix._rows[0], matrix._rows[1]
    return a, b, c, d, e, f


def _position(planner, node, frame):
    moved = planner.proxy.places(node._knobs["translate"]._numbers(frame))
    x, y = (round(number) for number in moved)
    return planner.add(
        "transform",
        a=planner.source(node, frame),
        inverse=[1, 0, -x, 0, 1, -y],
        forward=[1, 0, x, 0, 1, y],
        filter="Impulse",
        black_outside=True,
    )


def _tracker(planner, node, frame):
    if node._knobs["transform"]._value_at(frame) == "none":
        return planner.source(node, frame)
    return _transform(planner, node, frame)


def _blur(planner, node, frame):
    knobs = node._knobs
    return planner.add(
        "blur",
        a=planner.source(node, frame),
        channels=planner.channels(node, knobs["channels"]._raw),
        size=planner.proxy.places(knobs["size"]._numbers(frame)),
        filter=knobs["filter"]._value_at(frame),
        crop=bool(knobs["crop"]._number(frame)),
    )


def _dilate(sign):
    """Return the function of an erode: a Dilate grows with its size, the others shrink."""

    def step(planner, node, frame):
        size = planner.proxy.places(node._knobs["size"]._numbers(frame))
        return planner.add(
            "dilate",
            a=planner.source(node, frame),
            channels=planner.channels(node, node._knobs["channels"]._raw),
            size=[sign * number for number in size],
        )

    return step


def _crop(planner, node, frame):
    knobs = node._knobs
    if not knobs["crop"]._number(frame):
        return planner.source(node, frame)
    return planner.add(
        "crop",
        a=planner.source(node, frame),
        box=planner.proxy.places(knobs["box"]._numbers(frame)),
        reformat=bool(knobs["reformat"]._number(frame)),
        intersect=bool(knobs["intersect"]._number(frame)),
    )


def _reformat(planner, node, frame):
    knobs, kind = node._knobs, node._knobs["type"]._value_at(frame)
    shape = planner.app.formats.get(knobs["format"]._raw or planner.app.root._knobs["format"]._raw)
    size = planner.proxy.shape(shape)
    if kind == "to box":
        wide, high = (int(knobs[n]._number(frame)) for n in ("box_width", "box_height"))
        size = planner.proxy.sized(wide, high, 1.0)
    elif kind == "scale":
        across, up = knobs["scale"]._numbers(frame)
        old = node.input(0).format()
        size = {"width": round(old.width() * across), "height": round(old.height() * up)}
        size["pixel_aspect"] = old.pixelAspect()
    return planner.add(
        "reformat",
        a=planner.source(node, frame),
        resize=knobs["resize"]._value_at(frame),
        scaled=kind == "scale",
        center=bool(knobs["center"]._number(frame)),
        filter=knobs["filter"]._value_at(frame).capitalize(),
        black_outside=bool(knobs["black_outside"]._number(frame)),
        **size,
    )


def _constant(planner, node, frame):
    knobs = node._knobs
    shape = planner.proxy.shape(planner.app.formats.get(_sized(planner, node)))
    return planner.add("constant", values=knobs["color"]._numbers(frame), **shape)


def _sized(planner, node):
    return node._knobs["format"]._raw or planner.app.root._knobs["format"]._raw


def _checkers(planner, node, frame):
    knobs = node._knobs
    return planner.add(
        "checkers",
        box=planner.proxy.places(knobs["boxsize"]._numbers(frame)),
        colours=[knobs[f"color{i}"]._numbers(frame) for i in range(4)],
        line=max(planner.proxy.places(knobs["linewidth"]._numbers(frame))),
        line_colour=knobs["linecolor"]._numbers(frame),
        **planner.proxy.shape(planner.app.formats.get(_sized(planner, node))),
    )


def _roto(planner, node, frame):
    knobs, shapes = node._knobs, []
    for shape, opacity in _visible(knobs["curves"].rootLayer, frame):
        points = [tuple(p.center.getPosition(frame))[:2] for p in shape]
        move = shape.getTransform()
        dx, dy = (move.getTranslationAnimCurve(axis).evaluate(frame) for axis in (0, 1))
        placed = [planner.proxy.places((x + dx, y + dy)) for x, y in points]
        shapes.append((placed, opacity))
    return planner.add(
        "roto",
        a=planner.source(node, frame),
        shapes=[shape for shape in shapes if len(shape[0]) > 2],
        channels=planner.channels(node, knobs["output"]._raw) or ["rgba.alpha"],
        replace=bool(knobs["replace"]._number(frame)),
    )


def _visible(layer, frame):
    for element in layer:
        if not element.getVisible(frame):
            continue
        if type(element).__name__ == "Layer":
            yield from _visible(element, frame)
        elif type(element).__name__ == "Shape":
            yield element, element.getAttributes().getValue(frame, "opc")


STEPS = {
    "Add": _coloured("add", value="value"),
    "Blur": _blur,
    "CheckerBoard2": _checkers,
    "Clamp": _clamp,
    "Constant": _constant,
    "Crop": _crop,
    "Dilate": _dilate(1),
    "Erode": _dilate(-1),
    "Expression": _expression,
    "FilterErode": _dilate(-1),
    "Gamma": _coloured("gamma", value="value"),
    "Grade": _grade,
    "Invert": _coloured("invert"),
    "MergeExpression": _expression,
    "Multiply": _coloured("multiply", value="value"),
    "Position": _position,
    "Premult": _premult("premult"),
    "Reformat": _reformat,
    "Roto": _roto,
    "RotoPaint": _roto,
    "Saturation": _coloured("saturation", value="saturation"),
    "Tracker4": _tracker,
    "Transform": _transform,
    "Unpremult": _premult("unpremult"),
}
