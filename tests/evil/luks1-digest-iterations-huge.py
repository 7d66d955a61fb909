# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Years of work to check one key."""

from luks_image import Luks1, refuse

h = Luks1()
h.digest_iterations = 2 ** 32 - 1
refuse(h.build(), "ENOTSUP", "the key digest asks for 4294967295 PBKDF2 iterations")
