# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Sectors smaller than any disk has."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["sector_size"] = 256
refuse(h.build(), "ENOTSUP", "sectors of 256 bytes")
