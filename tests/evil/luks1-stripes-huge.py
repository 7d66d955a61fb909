# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Key material that would fill the memory."""

from luks_image import Luks1, refuse

h = Luks1()
h.keyslots[0][3] = 2 ** 32 - 1
refuse(h.build(), "ENOTSUP", "keyslot 0 has 4294967295 stripes")
