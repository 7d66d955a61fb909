# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Ceph was interrupted between changing the two magics."""

from luks_image import Luks2, accept

h = Luks2()
h.magics[1] = b"LDBR\xba\xbe"
accept(h.build())
