# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Stripes that would fill the memory."""

from luks_image import Luks2, refuse

h = Luks2()
h.slot["af"]["stripes"] = 2 ** 31
refuse(h.build(), "ENOTSUP", "keyslot 0 has 2147483648 stripes")
