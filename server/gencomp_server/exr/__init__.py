# SPDX-License-Identifier: Apache-2.0
"""Pictures on disk: the only door to OpenImageIO."""
