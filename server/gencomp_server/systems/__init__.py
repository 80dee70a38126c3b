# SPDX-License-Identifier: Apache-2.0
"""The systems: one line each.  Importing this imports neither torch, cv2 nor OpenImageIO."""

from gencomp_server.systems import dynvfx, gencomposite, omnimatte, overplusplus, splitthenmerge

REGISTRY = (
    omnimatte.SYSTEM,
    overplusplus.SYSTEM,
    gencomposite.SYSTEM,
    splitthenmerge.SYSTEM,
    dynvfx.SYSTEM,
)
