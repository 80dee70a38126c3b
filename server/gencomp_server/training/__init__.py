# SPDX-License-Identifier: Apache-2.0
"""Procedural shots whose every layer is known."""
