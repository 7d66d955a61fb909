# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A number that 32 bits would cut to 1000."""

from luks_image import Luks2, pbkdf2, refuse

h = Luks2()
h.slot["kdf"] = pbkdf2(2 ** 40 + 1000)
refuse(h.build(), "ENOTSUP", "keyslot 0 asks for 1099511628776 PBKDF2")
