# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The image ends inside the second copy, so there is no data area."""

from luks_image import Luks2, refuse

h = Luks2()
refuse(h.build()[0:20480], "EINVAL", "the data area begins at 1048576, but the image ends at 20480")
