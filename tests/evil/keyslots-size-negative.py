# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A minus sign in a size."""

from luks_image import Luks2, refuse

h = Luks2()
h.config["keyslots_size"] = "-4096"
refuse(h.build(), "EBADMSG", "config: \"keyslots_size\" is not a number")
