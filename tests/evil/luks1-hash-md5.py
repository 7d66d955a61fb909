# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A hash that is broken."""

from luks_image import Luks1, refuse

h = Luks1()
h.hash = b"md5"
refuse(h.build(), "ENOTSUP", "the header uses the hash")
