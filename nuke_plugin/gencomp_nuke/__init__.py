# SPDX-License-Identifier: Apache-2.0
"""The Nuke room: what runs inside Foundry Nuke."""
