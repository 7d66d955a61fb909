# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Key material of no size."""

from luks_image import Luks1, refuse

h = Luks1()
h.keyslots[0][3] = 0
refuse(h.build(), "ENOTSUP", "keyslot 0 has 0 stripes")
