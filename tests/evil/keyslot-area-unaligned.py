# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Key material in the middle of a block."""

from luks_image import KIB, Luks2, refuse

h = Luks2()
h.slot["area"]["offset"] = str(32 * KIB + 512)
refuse(h.build(), "EBADMSG", "keyslot 0: its area is not aligned")
