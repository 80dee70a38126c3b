# SPDX-License-Identifier: Apache-2.0
"""The ground floor: nouns that cross the wire between Nuke and the server."""

__version__ = "0.1.0"
PROTOCOL_VERSION = (1, 0)

__all__ = ["PROTOCOL_VERSION", "__version__"]
