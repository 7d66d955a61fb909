# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Without a first magic, but with a whole second copy: not a plain image."""

from luks_image import Luks2, refuse

h = Luks2()
image = h.build()
image[0:4096] = bytes(4096)
refuse(image, "EBADMSG", "the first copy is gone, but the second one is whole")
