# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A segment that ends nowhere."""

from luks_image import Luks2, refuse

h = Luks2()
del h.segment["size"]
refuse(h.build(), "EBADMSG", "segment 0: \"size\" is missing")
