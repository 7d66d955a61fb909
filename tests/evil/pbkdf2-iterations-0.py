# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A passphrase that costs nothing."""

from luks_image import Luks2, pbkdf2, refuse

h = Luks2()
h.slot["kdf"] = pbkdf2(0)
refuse(h.build(), "EBADMSG", "keyslot 0 has no PBKDF2 iterations")
