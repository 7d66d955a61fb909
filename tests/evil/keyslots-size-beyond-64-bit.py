# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A size that overflows 64 bits to something small."""

from luks_image import Luks2, refuse

h = Luks2()
h.config["keyslots_size"] = str(2 ** 64 + 524288)
refuse(h.build(), "EBADMSG", "config: \"keyslots_size\" is not a number")
