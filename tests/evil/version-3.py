# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A version of the future."""

from luks_image import Luks2, refuse

h = Luks2()
h.version = [3, 3]
refuse(h.build(), "ENOTSUP", "LUKS version 3")
