# SPDX-License-Identifier: Apache-2.0
"""The torch-free systems, in a server that forgets a silent client after two seconds."""

from gencomp_server import service
from stub_systems import REGISTRY

service.SESSION_SILENCE_S = 2.0

__all__ = ["REGISTRY"]
