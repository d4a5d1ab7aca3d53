// Package version says which build of kidoban this is.
package version

import (
	"cmp"
	"runtime/debug"
)

// Version is stamped by the build: -ldflags "-X github.com/kidoban/kidoban/internal/version.Version=v1.2.3".
var Version string

// String is the stamped version or, in a build without one, what the Go tool knows of the commit.
func String() string {
	if Version != "" {
		return Version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "git-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return cmp.Or(info.Main.Version, "unknown")
}
