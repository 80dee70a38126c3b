# SPDX-License-Identifier: Apache-2.0
"""The ground floor: nouns that cross the wire between Nuke and the server."""

from gencomp_protocol.client import (
    Client,
    LayerReady,
    Outcome,
    Progressed,
    Sent,
    StateChanged,
    Warned,
    request_key,
)
from gencomp_protocol.locate import ServerFile, find_server, home_folder, read_server_file
from gencomp_protocol.transfer import Picture, picture_of
from gencomp_protocol.version import PROTOCOL_VERSION, __version__

__all__ = [
    "PROTOCOL_VERSION",
    "Client",
    "LayerReady",
    "Outcome",
    "Picture",
    "Progressed",
    "Sent",
    "ServerFile",
    "StateChanged",
    "Warned",
    "__version__",
    "find_server",
    "home_folder",
    "picture_of",
    "read_server_file",
    "request_key",
]
