# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The newer copy decides, and it is not allowed."""

from luks_image import Luks2, older_copy, refuse

h = Luks2()


def change(json):
    json["segments"]["0"]["iv_tweak"] = "8"


h.sequence = [1, 1]
image = older_copy(h, change)
h.sequence = [5, 5]
h.segment["iv_tweak"] = "8"
image[h.size:2 * h.size] = h.copy(1)
refuse(image, "ENOTSUP", "second copy: not supported: segment 0 has its sector numbers shifted by 8")
