# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A number that no integer holds."""

from luks_image import Luks2, pbkdf2, refuse

h = Luks2()
h.slot["kdf"] = pbkdf2(10 ** 30)
refuse(h.build(), "ENOTSUP", "keyslot 0 asks for")
