# SPDX-License-Identifier: Apache-2.0
"""Video diffusion transformers behind one interface; the only room that imports diffusers."""
