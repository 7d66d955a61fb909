# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Key material inside the header."""

from luks_image import Luks1, refuse

h = Luks1()
h.keyslots[0][2] = 0
refuse(h.build(), "EBADMSG", "keyslot 0 lies outside the keyslots area")
