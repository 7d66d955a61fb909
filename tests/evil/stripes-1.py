# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Key material that is not split."""

from luks_image import Luks2, refuse

h = Luks2()
h.slot["af"]["stripes"] = 1
refuse(h.build(), "ENOTSUP", "keyslot 0 has 1 stripes")
