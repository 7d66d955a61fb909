# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A key for AES-192."""

from luks_image import Luks1, refuse

h = Luks1()
h.key_bytes = 48
refuse(h.build(), "ENOTSUP", "a volume key of 48 bytes")
