# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Years of work to try one passphrase."""

from luks_image import Luks1, refuse

h = Luks1()
h.keyslots[0][1] = 2 ** 32 - 1
refuse(h.build(), "ENOTSUP", "keyslot 0 asks for 4294967295 PBKDF2 iterations")
