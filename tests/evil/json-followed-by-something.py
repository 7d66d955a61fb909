# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A second text behind the end of the first."""

from luks_image import Luks2, refuse

h = Luks2()
text = b'{"config": {}}\0{"config": {}}'
h.text = [h.area(text), h.area(text)]
refuse(h.build(), "EBADMSG", "something follows the JSON text")
