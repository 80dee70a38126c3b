# SPDX-License-Identifier: Apache-2.0
"""A server seen from outside: health, metrics and a small page, in a process of its own.

It is one more client of the server, by the protocol: what happens to it changes nothing there.
"""
