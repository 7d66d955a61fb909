# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A splitter of the future."""

from luks_image import Luks2, refuse

h = Luks2()
h.slot["af"]["type"] = "luks3"
refuse(h.build(), "ENOTSUP", "keyslot 0: the splitter luks3")
