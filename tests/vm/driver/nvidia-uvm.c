// SPDX-License-Identifier: MIT OR GPL-2.0
// In the place of the driver's module for unified memory: its device numbers.
#include <linux/fs.h>
#include <linux/module.h>

static const struct file_operations nothing = { .owner = THIS_MODULE };
static int major;

static int __init start(void)
{
	major = register_chrdev(0, "nvidia-uvm", &nothing);
	return major < 0 ? major : 0;
}

static void __exit stop(void)
{
	unregister_chrdev(major, "nvidia-uvm");
}

module_init(start);
module_exit(stop);
MODULE_DESCRIPTION("stand-in for tests");
MODULE_LICENSE("Dual MIT/GPL");
