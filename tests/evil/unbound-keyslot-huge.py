# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Too expensive, though it holds another key: libraries differ in what they try."""

from luks_image import Luks2, argon2, refuse

h = Luks2()
h.add_keyslot(1, is_bound=False)["kdf"] = argon2(memory=1 << 30)
refuse(h.build(), "ENOTSUP", "keyslot 1 asks for 1073741824 KiB")
