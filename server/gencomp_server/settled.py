# SPDX-License-Identifier: Apache-2.0
"""Every setting of a user on a machine as it holds: the server's, the tables, defaults of knobs."""

from __future__ import annotations

from collections.abc import Mapping

from gencomp_protocol import home_folder, settings
from gencomp_protocol.locate import CLIENT_FILE
from gencomp_protocol.settings import (
    CLIENT,
    CLIENT_DEFAULTS,
    KNOBS,
    NUKE,
    NUKE_DEFAULTS,
    Key,
    Settled,
)

NUKE_FILE = "nuke.json"


def settled_here(environ: Mapping[str, str]) -> dict[Key, Settled]:
    """Return every setting of this user on this machine: the server's, the tables, the knobs.

    Args:
        environ: The environment.

    Raises:
        BadKnob: A file cannot be read, or says what cannot be.
    """
    from gencomp_server.config import load_config
    from gencomp_server.contract import schema
    from gencomp_server.knob_defaults import check
    from gencomp_server.systems import REGISTRY

    loaded, home = load_config(environ=environ), home_folder(environ)
    layers = loaded.layers
    check([schema(system) for system in REGISTRY], layers)
    found: dict[Key, Settled] = {(name,): one for name, one in loaded.settled.items()}
    users = home / CLIENT_FILE
    own = [settings.read_client_layer(users)] if users.exists() else []
    variables = settings.from_environ([(CLIENT, name) for name in CLIENT_DEFAULTS], environ)
    found |= settings.client_settings(layers, (*own, variables))
    users = home / NUKE_FILE
    own = [settings.read_json_layer(users, NUKE)] if users.exists() else []
    variables = settings.from_environ([(NUKE, name) for name in NUKE_DEFAULTS], environ)
    found |= settings.nuke_settings(layers, (*own, variables))
    for system in sorted(settings.systems_named(layers)):
        for name, one in settings.knobs_of(system, layers).items():
            found[(KNOBS, system, name)] = one
    return found
