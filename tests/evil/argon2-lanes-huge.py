# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A thousand threads."""

from luks_image import Luks2, argon2, refuse

h = Luks2()
h.slot["kdf"] = argon2(cpus=1000)
refuse(h.build(), "ENOTSUP", "keyslot 0 asks for 1000 Argon2 lanes, more than the limit of 16")
