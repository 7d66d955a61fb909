# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""An array in an array in an array ..."""

from luks_image import Luks2, refuse

h = Luks2()
text = "[" * 64 + "]" * 64
h.text = [h.area(text), h.area(text)]
refuse(h.build(), "EBADMSG", "JSON: nesting too deep")
