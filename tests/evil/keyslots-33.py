# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""One keyslot more than there can be."""

from luks_image import Luks2, refuse

h = Luks2()
for n in range(1, 33):
    h.add_keyslot(n)
refuse(h.build(), "EBADMSG", "more than 32 keyslots")
