package main

import "fmt"

// arch is a processor architecture that QEMU emulates.
type arch struct {
	name    string   // Go's and Debian's
	qemu    string   // program
	machine []string // QEMU's flags
	console string   // the kernel's name of the first serial port
	report  string   // the file that the second port is in the machine
	// reportFlags are QEMU's flags that connect the second port to a file.
	reportFlags func(file string) []string
}

var arches = []arch{
	{
		name: "amd64", qemu: "qemu-system-x86_64",
		// cmpxchg16b ends QEMU 7.2 when several threads emulate.
		machine: []string{"-cpu", "max,-cx16"},
		console: "ttyS0", report: "/dev/ttyS1",
		reportFlags: func(file string) []string { return []string{"-serial", "file:" + file} },
	},
	{
		// The processor is that of AWS Graviton2. The machine virt has one serial port, so the second is a device on PCI.
		name: "arm64", qemu: "qemu-system-aarch64",
		machine: []string{"-machine", "virt,gic-version=3", "-cpu", "neoverse-n1"},
		console: "ttyAMA0", report: "/dev/ttyS0",
		reportFlags: func(file string) []string {
			return []string{"-chardev", "file,id=report,path=" + file, "-device", "pci-serial,chardev=report"}
		},
	},
}

func findArch(name string) (arch, error) {
	for _, a := range arches {
		if a.name == name {
			return a, nil
		}
	}
	return arch{}, fmt.Errorf("--arch %s: give amd64 or arm64", name)
}

// releaseSuffix is the end of the releases of Debian's kernels for virtual machines.
func (a arch) releaseSuffix() string { return "-cloud-" + a.name }
