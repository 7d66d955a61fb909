# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Every keyslot was erased."""

from luks_image import Luks1, refuse

h = Luks1()
h.keyslots[0][0] = h.DISABLED
refuse(h.build(), "ENOTSUP", "no keyslot in use")
