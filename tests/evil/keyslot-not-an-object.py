# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A keyslot that is a string."""

from luks_image import Luks2, refuse

h = Luks2()
h.json["keyslots"]["3"] = "luks2"
refuse(h.build(), "EBADMSG", "keyslot 3 is not an object")
