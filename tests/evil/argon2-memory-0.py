# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""No memory."""

from luks_image import Luks2, argon2, refuse

h = Luks2()
h.slot["kdf"] = argon2(memory=0)
refuse(h.build(), "EBADMSG", "keyslot 0 has an Argon2 cost of zero")
