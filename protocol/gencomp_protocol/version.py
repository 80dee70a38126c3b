# SPDX-License-Identifier: Apache-2.0
"""The versions of the distribution and of the protocol, which move independently."""

__version__ = "0.1.0"
PROTOCOL_VERSION = (1, 2)
