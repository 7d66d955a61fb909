# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The data area would overwrite a keyslot."""

from luks_image import Luks1, refuse

h = Luks1()
h.payload = 100
refuse(h.build(), "EBADMSG", "keyslot 0 lies outside the keyslots area")
