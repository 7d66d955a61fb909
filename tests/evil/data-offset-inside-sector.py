# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The data area begins in the middle of a sector."""

from luks_image import Luks2, MIB, refuse

h = Luks2()
h.segment["offset"] = str(MIB + 512)
refuse(h.build(), "EINVAL", "inside a sector of 4096 bytes")
