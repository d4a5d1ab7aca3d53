package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTimes are CPU times by program: of this one and its children.
type cpuTimes map[string]time.Duration

const clockTick = time.Second / 100 // USER_HZ, the same on every Linux architecture that Go supports

// loadAndObserver is the name of this program's own CPU time.
const loadAndObserver = "load and observer"

func cpuNow() cpuTimes {
	out := cpuTimes{}
	var self unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &self)
	out[loadAndObserver] = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil { // it has ended
			continue
		}
		before, after, _ := bytes.Cut(data, []byte(") "))
		_, name, _ := bytes.Cut(before, []byte("("))
		var state string
		var parent, skip, user, system int
		_, err = fmt.Sscan(string(after), &state, &parent, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &user, &system)
		if err == nil && parent == os.Getpid() && string(name) != "sh" {
			out[string(name)] += time.Duration(user+system) * clockTick
		}
	}
	return out
}

// since returns the CPU time used since an earlier moment.
func (c cpuTimes) since(earlier cpuTimes) cpuTimes {
	out := cpuTimes{}
	for name, t := range c {
		out[name] = t - earlier[name]
	}
	return out
}

// String lists the CPU time of each program.
func (c cpuTimes) String() string {
	var parts []string
	var sum time.Duration
	for name, t := range c {
		sum += t
		parts = append(parts, fmt.Sprintf("%s %.1f s", name, t.Seconds()))
	}
	slices.Sort(parts)
	return fmt.Sprintf("%.1f s of CPU (%s)", sum.Seconds(), strings.Join(parts, ", "))
}

// controllerAndServer is the CPU time of the API server and of the measured controller.
func (c cpuTimes) controllerAndServer() time.Duration {
	var sum time.Duration
	for name, t := range c {
		if name != loadAndObserver && name != "etcd" {
			sum += t
		}
	}
	return sum
}
