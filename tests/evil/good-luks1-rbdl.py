# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Formatted by Ceph while the image had a parent."""

from luks_image import Luks1, accept

h = Luks1()
h.magic = b"RBDL\xba\xbe"
accept(h.build())
