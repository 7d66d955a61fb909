# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Formatted by Ceph while the image had a parent: other magics, same checksums."""

from luks_image import Luks2, accept

h = Luks2()
h.magics = [b"RBDL\xba\xbe", b"LDBR\xba\xbe"]
accept(h.build())
