# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The image ends where the data area begins: librbd takes it."""

from luks_image import Luks2, MIB, accept

h = Luks2()
h.image_size = MIB
accept(h.build())
