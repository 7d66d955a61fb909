# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A terabyte of memory."""

from luks_image import Luks2, argon2, refuse

h = Luks2()
h.slot["kdf"] = argon2(memory=1 << 30)
refuse(h.build(), "ENOTSUP", "keyslot 0 asks for 1073741824 KiB of Argon2 memory, more than the limit of 4194304")
