# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Less than nothing."""

from luks_image import Luks2, pbkdf2, refuse

h = Luks2()
h.slot["kdf"] = pbkdf2(-1)
refuse(h.build(), "EBADMSG", "keyslot 0: \"iterations\" is negative")
