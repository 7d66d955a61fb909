# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Years of work to try one passphrase."""

from luks_image import Luks2, pbkdf2, refuse

h = Luks2()
h.slot["kdf"] = pbkdf2(4294967295)
refuse(h.build(), "ENOTSUP", "keyslot 0 asks for 4294967295 PBKDF2 iterations, more than the limit of 50000000")
