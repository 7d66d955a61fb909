# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A first copy that is whole serves alone."""

from luks_image import Luks2, accept

h = Luks2()
image = h.build()
image[h.size + 5000] ^= 1
accept(image)
