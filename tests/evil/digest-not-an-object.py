# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A digest that is a number."""

from luks_image import Luks2, refuse

h = Luks2()
h.json["digests"]["7"] = 7
refuse(h.build(), "EBADMSG", "digest 7 is not an object")
