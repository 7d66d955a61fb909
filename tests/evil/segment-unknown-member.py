# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A member of the future may change what the bytes mean."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["iv_large_sectors"] = True
refuse(h.build(), "ENOTSUP", "segment 0 has the unknown member")
