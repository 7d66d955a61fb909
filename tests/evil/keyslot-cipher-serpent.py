# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Key material under a cipher we do not want to run."""

from luks_image import Luks2, refuse

h = Luks2()
h.slot["area"]["encryption"] = "serpent-xts-plain64"
refuse(h.build(), "ENOTSUP", "keyslot 0: the cipher serpent-xts-plain64")
