# SPDX-License-Identifier: Apache-2.0
"""The engine: one job's life, its worker process, its stages and its spool."""
