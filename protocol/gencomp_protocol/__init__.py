# SPDX-License-Identifier: Apache-2.0
"""The ground floor: nouns that cross the wire between Nuke and the server.

What is named here is imported when it is first asked for: a decoder, or a worker, needs neither the
client nor ZeroMQ, and starts in half the time without.
"""

import importlib as _importlib
import typing as _typing

from gencomp_protocol.version import PROTOCOL_VERSION, __version__

if _typing.TYPE_CHECKING:
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

_LOCATE = ("ServerFile", "find_server", "home_folder", "read_server_file")
_TRANSFER = ("Picture", "picture_of")


def __getattr__(name: str) -> _typing.Any:
    """Import what is asked for and not there yet."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "locate" if name in _LOCATE else "transfer" if name in _TRANSFER else "client"
    value = getattr(_importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
