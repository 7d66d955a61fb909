# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The keyslots area ends in the middle of a block."""

from luks_image import Luks2, refuse

h = Luks2()
h.config["keyslots_size"] = "524289"
refuse(h.build(), "EBADMSG", "\"keyslots_size\" is impossible")
