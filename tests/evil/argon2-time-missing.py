# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""No passes at all."""

from luks_image import Luks2, argon2, refuse

h = Luks2()
h.slot["kdf"] = argon2()
del h.slot["kdf"]["time"]
refuse(h.build(), "EBADMSG", "keyslot 0: \"time\" is missing")
