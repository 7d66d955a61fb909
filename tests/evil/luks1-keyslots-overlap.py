# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Two keyslots in one place."""

from luks_image import Luks1, refuse

h = Luks1()
h.keyslots[5] = h.keyslots[0]
refuse(h.build(), "EBADMSG", "keyslots 0 and 5 overlap")
