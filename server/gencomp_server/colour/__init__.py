# SPDX-License-Identifier: Apache-2.0
"""Colour: the space a job's pictures are in, and the range a model sees them in, both ways."""
