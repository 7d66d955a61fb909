# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Neither in use nor free."""

from luks_image import Luks1, refuse

h = Luks1()
h.keyslots[3][0] = 0x1234
refuse(h.build(), "EBADMSG", "keyslot 3 is neither in use nor free")
