# SPDX-License-Identifier: Apache-2.0
"""Proxy mode: by how much every picture and every place in it is smaller.

As Nuke documents it: with the root's ``proxy`` on, Reads give their pictures at the proxy's size,
whatever makes a picture of a format makes a smaller one, and knobs that hold places or sizes in
pixels (XY, WH, BBox, Transform) reach the renderer scaled. What Python and expressions see of such
a knob is the full-size number, always.
"""

_USUAL_FORMAT = "1K_Super_35(full-ap)"


class Proxy:
    """The scale of one script as it is now.

    Args:
        app: The stand-in.
    """

    def __init__(self, app):
        self.x, self.y = _scale_of(app)

    @property
    def is_on(self):
        return (self.x, self.y) != (1.0, 1.0)

    def shape(self, found):
        """Return a format as words of a step, at the proxy's size."""
        return self.sized(found.width(), found.height(), found.pixelAspect())

    def sized(self, width, height, pixel_aspect):
        return {
            "width": max(1, int(width * self.x + 0.5)),
            "height": max(1, int(height * self.y + 0.5)),
            "pixel_aspect": pixel_aspect * self.y / self.x,
        }

    def places(self, numbers):
        """Return x, y, x, y … of the full size as those of the proxy."""
        return [n * (self.y if i % 2 else self.x) for i, n in enumerate(numbers)]

    def plane(self, matrix):
        """Return x' = ax + by + c, y' = dx + ey + f between places of the proxy."""
        a, b, c, d, e, f = matrix
        across = self.x / self.y
        return [a, b * across, c * self.x, d / across, e, f * self.y]


def _scale_of(app):
    knobs = app.root._knobs
    if not knobs["proxy"].value():
        return 1.0, 1.0
    if knobs["proxy_type"].value() == "scale":
        return (float(knobs["proxy_scale"].value()),) * 2
    full = app.formats.get(knobs["format"]._raw)
    small = app.formats.get(knobs["proxy_format"]._raw or _USUAL_FORMAT)
    return small.width() / full.width(), small.height() / full.height()
