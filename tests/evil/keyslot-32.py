# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""One more than there are."""

from luks_image import Luks2, refuse

h = Luks2()
h.json["keyslots"]["32"] = h.slot
refuse(h.build(), "EBADMSG", "a keyslot is called")
