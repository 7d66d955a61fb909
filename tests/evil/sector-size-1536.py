# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A size that is not a power of two."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["sector_size"] = 1536
refuse(h.build(), "ENOTSUP", "sectors of 1536 bytes")
