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
// error, and so is an argument that is not a flag: a setting that is misspelt must not look as if it were in force.
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
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 { // the parser stops there: a switch before it is on, and what follows is not read
		return fmt.Errorf("argument %q is not a flag; a flag and its value are one argument, as --name=value", fs.Arg(0))
	}
	return nil
}

// EnvName is the environment variable that sets a flag.
func EnvName(flag string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
