// SPDX-License-Identifier: MIT OR GPL-2.0
// In the place of the driver's kernel module: what that one shows in /proc, and device numbers that open without effect.
//   version=550.54.15   gpu=0000:19:00.0=GPU-…,…   (both may be changed by loading it again, the version also in /sys)
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

#define MAX_GPUS 16
static char *version = "550.54.15";
module_param(version, charp, 0644);
static char *gpu[MAX_GPUS];
static int gpus;
module_param_array(gpu, charp, &gpus, 0444);

static const struct file_operations nothing = { .owner = THIS_MODULE };
static struct proc_dir_entry *top, *caps;
static int caps_major;

static int show_version(struct seq_file *out, void *data)
{
	kernel_param_lock(THIS_MODULE);
	seq_printf(out, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  %s  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  gcc\n", version);
	kernel_param_unlock(THIS_MODULE);
	return 0;
}

static int show_params(struct seq_file *out, void *data)
{
	seq_puts(out, "ModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438\n");
	return 0;
}

static int show_minors(struct seq_file *out, void *data)
{
	seq_puts(out, "config 1\nmonitor 2\n");
	return 0;
}

static int show_gpu(struct seq_file *out, void *data)
{
	long minor = (long)out->private;

	seq_printf(out, "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t %ld\nGPU UUID: \t %s\nBus Type: \t PCIe\nBus Location: \t %.12s\nDevice Minor: \t %ld\nGPU Excluded:\t No\n",
		   16 + minor, gpu[minor] + 13, gpu[minor], minor);
	return 0;
}

static int __init start(void)
{
	struct proc_dir_entry *all, *one;
	char bus[13];
	long i;

	for (i = 0; i < gpus; i++)
		if (strlen(gpu[i]) < 14)
			return -EINVAL;
	if (__register_chrdev(195, 0, 254, "nvidia", &nothing) < 0 || __register_chrdev(195, 254, 1, "nvidia-modeset", &nothing) < 0 ||
	    __register_chrdev(195, 255, 1, "nvidiactl", &nothing) < 0)
		return -EBUSY;
	caps_major = register_chrdev(0, "nvidia-caps", &nothing);
	caps = proc_mkdir("driver/nvidia-caps", NULL);
	proc_create_single("mig-minors", 0444, caps, show_minors);
	top = proc_mkdir("driver/nvidia", NULL);
	proc_create_single("params", 0444, top, show_params);
	all = proc_mkdir("gpus", top);
	for (i = 0; i < gpus; i++) {
		strscpy(bus, gpu[i], sizeof(bus));
		one = proc_mkdir(bus, all);
		proc_create_single_data("information", 0444, one, show_gpu, (void *)i);
	}
	// Last, since it says that the driver is there.
	proc_create_single("version", 0444, top, show_version);
	return 0;
}

static void __exit stop(void)
{
	proc_remove(top);
	proc_remove(caps);
	unregister_chrdev(caps_major, "nvidia-caps");
	__unregister_chrdev(195, 255, 1, "nvidiactl");
	__unregister_chrdev(195, 254, 1, "nvidia-modeset");
	__unregister_chrdev(195, 0, 254, "nvidia");
}

module_init(start);
module_exit(stop);
MODULE_DESCRIPTION("stand-in for tests");
MODULE_LICENSE("Dual MIT/GPL");
