# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Two keyslots, two lengths, one digest."""

from luks_image import Luks2, refuse

h = Luks2()
h.add_keyslot(1)["key_size"] = 32
refuse(h.build(), "EBADMSG", "keyslots hold keys of different length")
