# SPDX-License-Identifier: Apache-2.0
"""The cutout of ``stub_systems``, with a knob that an artist writes words into."""

from dataclasses import dataclass, replace

import stub_systems
from gencomp_server.contract import knob


@dataclass(frozen=True)
class Params(stub_systems.Params):
    prompt: str = knob("", doc="Does nothing.", delivery=True)


REGISTRY = (replace(stub_systems.CUTOUT, params=Params),)
