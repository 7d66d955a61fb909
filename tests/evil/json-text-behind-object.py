# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""More text behind the object."""

from luks_image import Luks2, refuse

h = Luks2()
text = "{} {}"
h.text = [h.area(text), h.area(text)]
refuse(h.build(), "EBADMSG", "JSON: ")
