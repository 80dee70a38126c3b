# SPDX-License-Identifier: Apache-2.0
"""``nuke.math``: vectors and 4x4 matrices, as far as transforms of the plane need them."""

import math


class Vector2:
    """Two numbers."""

    def __init__(self, x=0.0, y=0.0):
        self.x, self.y = float(x), float(y)

    def __getitem__(self, index):
        return (self.x, self.y)[index]

    def __iter__(self):
        return iter((self.x, self.y))


class Vector3(Vector2):
    """Three numbers."""

    def __init__(self, x=0.0, y=0.0, z=0.0):
        super().__init__(x, y)
        self.z = float(z)

    def __getitem__(self, index):
        return (self.x, self.y, self.z)[index]

    def __iter__(self):
        return iter((self.x, self.y, self.z))


class Vector4(Vector3):
    """Four numbers."""

    def __init__(self, x=0.0, y=0.0, z=0.0, w=0.0):
        super().__init__(x, y, z)
        self.w = float(w)

    def __getitem__(self, index):
        return (self.x, self.y, self.z, self.w)[index]

    def __iter__(self):
        return iter((self.x, self.y, self.z, self.w))


class Matrix4:
    """A 4x4 matrix; ``m[i]`` counts column by column, as Nuke's does."""

    def __init__(self, other=None):
        self._rows = [[float(i == j) for j in range(4)] for i in range(4)]
        if other is not None:
            self._rows = [list(row) for row in other._rows]

    def makeIdentity(self):
        self._rows = Matrix4()._rows

    def __getitem__(self, index):
        return self._rows[index % 4][index // 4]

    def __setitem__(self, index, value):
        self._rows[index % 4][index // 4] = float(value)

    def __len__(self):
        return 16

    def __mul__(self, other):
        made = Matrix4()
        made._rows = [
            [sum(self._rows[i][k] * other._rows[k][j] for k in range(4)) for j in range(4)]
            for i in range(4)
        ]
        return made

    def translate(self, x, y=0.0, z=0.0):
        step = Matrix4()
        for row, value in enumerate((x, y, z)):
            step._rows[row][3] = float(value)
        self._rows = (self * step)._rows

    translation = translate

    def scale(self, x, y=None, z=1.0):
        step = Matrix4()
        for row, value in enumerate((x, x if y is None else y, z)):
            step._rows[row][row] = float(value)
        self._rows = (self * step)._rows

    def rotateZ(self, radians):
        step, c, s = Matrix4(), math.cos(radians), math.sin(radians)
        step._rows[0][:2], step._rows[1][:2] = [c, -s], [s, c]
        self._rows = (self * step)._rows

    def skewXY(self, x, y):
        step = Matrix4()
        step._rows[0][1], step._rows[1][0] = float(x), float(y)
        self._rows = (self * step)._rows

    def transform(self, vector):
        numbers = [*vector][:3]
        numbers = [*numbers, *[0.0] * (3 - len(numbers)), 1.0]
        out = [sum(a * b for a, b in zip(row, numbers)) for row in self._rows]
        return type(vector)(*out[: len([*vector])])


def of_knobs(node, frame):
    """Return the matrix of a Transform's knobs at a frame: pixels, y upwards."""
    knobs, made = node._knobs, Matrix4()
    x, y = knobs["center"]._numbers(frame)
    made.translate(*knobs["translate"]._numbers(frame))
    made.translate(x, y)
    made.rotateZ(math.radians(knobs["rotate"]._number(frame)))
    skew = [knobs[name]._number(frame) for name in ("skewX", "skewY")]  # Pixels per pixel.
    order = [(skew[0], 0.0), (0.0, skew[1])]
    for step in order if knobs["skew_order"]._index(frame) == 0 else order[::-1]:
        made.skewXY(*step)
    made.scale(*knobs["scale"]._numbers(frame))
    made.translate(-x, -y)
    return made


def inverse_of_plane(matrix):
    """Return the inverse in the plane as a, b, c, d, e, f: x' = ax + by + c, y' = dx + ey + f.

    Raises:
        RuntimeError: There is none: the scale is 0.
    """
    (a, b, _, c), (d, e, _, f) = matrix._rows[0], matrix._rows[1]
    size = a * e - b * d
    if size == 0:
        raise RuntimeError("a transform with a scale of 0 cannot be undone")
    a, b, d, e = e / size, -b / size, -d / size, a / size
    return [a, b, -(a * c + b * f), d, e, -(d * c + e * f)]
