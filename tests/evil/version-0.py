# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""No version at all."""

from luks_image import Luks2, refuse

h = Luks2()
h.version = [0, 0]
refuse(h.build(), "ENOTSUP", "LUKS version 0")
