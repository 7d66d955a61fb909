# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Years of work to check one key."""

from luks_image import Luks2, refuse

h = Luks2()
h.digest["iterations"] = 4000000000
refuse(h.build(), "ENOTSUP", "digest 0 asks for 4000000000 PBKDF2 iterations, more than the limit of 50000000")
