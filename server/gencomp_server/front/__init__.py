# SPDX-License-Identifier: Apache-2.0
"""What the front does in a turn, a module to a subject; ``service.py`` makes and drives them."""
