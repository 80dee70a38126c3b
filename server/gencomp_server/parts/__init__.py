# SPDX-License-Identifier: Apache-2.0
"""Shared steps: plain arrays in, plain arrays out; no job, no socket, no system."""
