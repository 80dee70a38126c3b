# SPDX-License-Identifier: Apache-2.0
"""The ``measured`` fixture: what a test measured, for the page of the faults, and its bound.

Figures of one name in several tests stand in one line each; the head of the page adds up or
compares those that are named here.
"""

import pytest

SEEDS, LOST, DOUBLED = "kill seeds run", "jobs lost", "jobs doubled"
SILENT = "files or layers silently accepted"
TRIED, REFUSED, DECODED = "damaged files tried", "damaged files refused", "damaged files decoded"
DEATHS, MEMORY = "decoder deaths", "most memory of a decoder"
FIGURE = "figure"  # The name of the property that a report carries.


class Measured:
    """Notes the figures of one test."""

    def __init__(self, properties):
        self._properties = properties

    def __call__(self, figure, value, unit="", *, most=None, least=None):
        """Note a figure as it was measured, then hold it to its bounds.

        Args:
            figure: What was measured, such as ``cancel p95``.
            value: How much it was; nothing is rounded.
            unit: ``s``, ``MiB``, ...; empty for a count or a share.
            most: It may not be more.
            least: It may not be less.

        Raises:
            AssertionError: It is beyond a bound. It is on the page all the same.
        """
        plain = value if isinstance(value, int) else float(value)
        entry = {"figure": figure, "value": plain, "unit": unit, "most": most, "least": least}
        self._properties.append((FIGURE, entry))
        assert is_kept(entry), f"{figure}: {plain} {unit}, {bound_of(entry)}"


@pytest.fixture
def measured(request):
    """Return what notes a figure: ``measured("cancel p95", 0.31, "s", most=0.65)``."""
    return Measured(request.node.user_properties)


def is_kept(entry):
    """Tell whether a figure is within its bounds; one that is no number is not."""
    value, most, least = entry["value"], entry["most"], entry["least"]
    return (most is None or value <= most) and (least is None or value >= least)


def bound_of(entry):
    """Spell the bounds of a figure."""
    most, least, unit = entry["most"], entry["least"], entry["unit"]
    if most is not None and most == least:
        return f"{most} {unit}".strip()
    limits = (("≥", least), ("≤", most))
    return ", ".join(f"{word} {at} {unit}".strip() for word, at in limits if at is not None)
