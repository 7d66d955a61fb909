# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Sectors of nothing."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["sector_size"] = 0
refuse(h.build(), "ENOTSUP", "sectors of 0 bytes")
