# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A keyslot without a number."""

from luks_image import Luks2, refuse

h = Luks2()
h.json["keyslots"]["master"] = h.slot
refuse(h.build(), "EBADMSG", "a keyslot is called")
