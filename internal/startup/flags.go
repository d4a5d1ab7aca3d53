package startup

import (
	"flag"
	"fmt"
	"slices"
	"strings"
)

// EnvPrefix begins the environment variables that set flags: KIDOBAN_ENFORCING_MODE=strict is --enforcing-mode=strict.
const EnvPrefix = "KIDOBAN_"

// ParseFlags sets flags by environ ("NAME=value"), and then by args, which win. A variable with EnvPrefix that belongs to no flag is an
// error: a setting that is misspelt must not look as if it were in force.
func ParseFlags(fs *flag.FlagSet, args, environ []string) error {
	settings := map[string]string{}
	fs.VisitAll(func(f *flag.Flag) { settings[EnvName(f.Name)] = f.Name })
	for _, variable := range slices.Sorted(slices.Values(environ)) {
		if !strings.HasPrefix(variable, EnvPrefix) {
			continue
		}
		name, value, _ := strings.Cut(variable, "=")
		f, ok := settings[name]
		if !ok {
			return fmt.Errorf("environment variable %s: there is no such setting; docs/configuration.md has them all", name)
		}
		if err := fs.Set(f, value); err != nil {
			return fmt.Errorf("environment variable %s=%s: %w", name, value, err)
		}
	}
	return fs.Parse(args)
}

// EnvName is the environment variable that sets a flag.
func EnvName(flag string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
