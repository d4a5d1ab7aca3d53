module github.com/kidoban/kidoban/hack/vm

go 1.26.0

require (
	github.com/cavaliergopher/cpio v1.0.1
	github.com/spf13/cobra v1.10.2
	github.com/ulikunitz/xz v0.5.15
	golang.org/x/sys v0.48.0
)

require (
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
)
