# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The same number written in two ways."""

from luks_image import Luks2, refuse

h = Luks2()
h.json["keyslots"]["00"] = h.keyslot(1)
refuse(h.build(), "EBADMSG", "a keyslot is called")
