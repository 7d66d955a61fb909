# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A key that overflows what is computed from it."""

from luks_image import Luks2, refuse

h = Luks2()
h.slot["key_size"] = 2 ** 62
refuse(h.build(), "ENOTSUP", "a volume key of 4611686018427387904 bytes")
