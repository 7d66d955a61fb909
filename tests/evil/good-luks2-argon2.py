# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""An Argon2 keyslot with ordinary costs."""

from luks_image import Luks2, accept, argon2

h = Luks2()
h.slot["kdf"] = argon2()
accept(h.build())
