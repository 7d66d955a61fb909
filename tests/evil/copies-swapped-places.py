# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The second copy claims to be made for another place."""

from luks_image import Luks2, refuse

h = Luks2()
h.offsets = [h.size, 0]
refuse(h.build(), "EBADMSG", "first copy: made for another place; second copy: made for another place")
