# SPDX-License-Identifier: Apache-2.0
"""Figures that compare pictures: arrays in, numbers out; opens no file and loads no model."""
