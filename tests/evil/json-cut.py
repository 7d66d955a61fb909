# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The text ends in the middle."""

from luks_image import Luks2, refuse

h = Luks2()
text = '{"keyslots": {"0": {"type": "lu'
h.text = [h.area(text), h.area(text)]
refuse(h.build(), "EBADMSG", "JSON: ")
