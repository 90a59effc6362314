// SPDX-License-Identifier: MIT OR GPL-2.0
// In the place of the driver's module for displays, which is loaded by name and here does nothing.
#include <linux/module.h>

MODULE_DESCRIPTION("stand-in for tests");
MODULE_LICENSE("Dual MIT/GPL");
