# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A keyslots area of 256 MiB."""

from luks_image import Luks2, MIB, refuse

h = Luks2()
h.config["keyslots_size"] = str(256 * MIB)
refuse(h.build(), "EBADMSG", "\"keyslots_size\" is impossible")
