# `make help` tells what there is. Tools come from hack/go.mod, at the versions that it pins.

VERSION    ?= $(shell git describe --tags --always --dirty)
REVISION   ?= $(shell git rev-parse HEAD)
ARCH       ?= $(shell go env GOARCH)
TAG        ?= dev
NODES      ?= 2
PROXY_MODE ?= nftables
IP_FAMILIES ?= IPv4,IPv6
FOCUS      ?= Netpol
PROCS      ?= 4
KERNELS    ?= 6.12,6.18,newest
KUBECTL    ?= kubectl
OVERLAY    ?= config/default
CLEANUP    ?= config/cleanup
FLOWS      ?= 1000000
SEED       ?= 1
MINUTES    ?= 30

tool     = go tool -modfile=$(CURDIR)/hack/go.mod
go-build = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w -X github.com/kidoban/kidoban/internal/version.Version=$(VERSION)'
# For all tests of a package, on a machine that does other things too. What they wait for has limits of its own.
patience = -timeout=1h
heading  = @printf '\n==> %s\n' '$(1)'

# An image with its labels, and its bill of materials beside it: (name, user, description). The Dockerfile says the same.
define pack
bin/image --platform=linux/$(ARCH) --tag=kidoban.dev/$(1):$(TAG) --user=$(2) --entrypoint=/$(1) \
	--output=dist/$(ARCH)/$(1).tar --sbom=dist/$(ARCH)/$(1).cdx.json \
	--label=org.opencontainers.image.title=kidoban-$(1) --label='org.opencontainers.image.description=$(3)' \
	--label=org.opencontainers.image.source=https://github.com/kidoban/kidoban --label=org.opencontainers.image.licenses=Apache-2.0 \
	--label=org.opencontainers.image.version=$(VERSION) --label=org.opencontainers.image.revision=$(REVISION) \
	dist/$(ARCH)/$(1):/$(1)
endef

modules = $(dir $(wildcard go.mod e2e/go.mod hack/go.mod hack/*/go.mod))
# Those with code of ours to look through. (hack/testenv has one file, and to look through it is to load all of Kubernetes.)
code = $(filter-out hack/ hack/e2eenv/ hack/nodeenv/ hack/testenv/,$(modules))

generated = api config/crd/bases config/rbac/role.yaml internal/dataplane/bpf docs/cli docs/configuration.md

# The generated BPF object depends on the compiler's version.
export BPF2GO_CC    = clang-14
export BPF2GO_STRIP = llvm-strip-14

.NOTPARALLEL:
.SUFFIXES:

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^##@/ { print "\n" substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

##@ Build

.PHONY: build
build: ## Build the static binaries into bin/
	$(go-build) -o bin/ ./cmd/...

.PHONY: image
image: bin/image ## Pack the images into dist/ARCH/*.tar, without Docker (ARCH=arm64 TAG=dev)
	GOARCH=$(ARCH) $(go-build) -o dist/$(ARCH)/ ./cmd/controller ./cmd/agent
	$(call pack,controller,65532:65532,Resolves NetworkPolicies into PolicyEndpoints)
	$(call pack,agent,0:0,Enforces PolicyEndpoints on a node with eBPF)

.PHONY: release
release: ## Everything of a release into dist/release (VERSION=v0.1.0)
	for arch in amd64 arm64; do $(MAKE) image ARCH=$$arch TAG=$(VERSION) VERSION=$(VERSION) || exit 1; done
	for p in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64; do \
		GOOS=$${p%/*} GOARCH=$${p#*/} $(go-build) -o dist/plugin/$$p/ ./cmd/kubectl-kidoban || exit 1; done
	hack/release.sh $(VERSION)

.PHONY: generate
generate: ## Regenerate Go code: deep copies, and the BPF objects (with Debian 12's clang)
	hack/apt.sh clang-14=clang-14 llvm-strip-14=llvm-14 /usr/include/bpf/bpf_helpers.h=libbpf-dev
	$(tool) controller-gen object paths=./api/...
	go generate ./...

.PHONY: manifests
manifests: ## Regenerate the CRDs and the controller's role from the code's markers
	$(tool) controller-gen crd paths=./api/... output:crd:dir=config/crd/bases
	$(tool) controller-gen rbac:roleName=kidoban-controller paths=./internal/controller/... output:rbac:dir=config/rbac

.PHONY: clean
clean: ## Remove what was built (the test cluster's binaries stay in the user's cache directory)
	rm -rf bin dist

##@ Test

.PHONY: test
test: test-unit fuzz-short test-envtest test-dataplane test-kernels-short e2e conformance-short ## Everything that a change must pass (needs root)

.PHONY: test-unit
test-unit: gcc ## Unit tests of every module, with the race detector
	$(call heading,Unit tests)
	go test -race $(patience) $$(go list ./... | grep -vE '/internal/(controller|dataplane|agent/kerneltest|cli/lab|migrate/calico/leftovers)')
	for m in $(filter-out ./,$(code)); do go -C $$m test -race $(patience) -count=1 ./... || exit 1; done # they read files that Go's cache of results does not know

.PHONY: test-envtest
test-envtest: gcc bin/cluster ## Tests on a real API server (a first time builds Kubernetes: 10 minutes)
	$(call heading,Tests on a real API server)
	assets=$$(bin/cluster assets) && KUBEBUILDER_ASSETS=$$assets go test -race $(patience) -tags=envtest ./api/... ./cmd/controller/... ./internal/controller/...

.PHONY: test-dataplane
test-dataplane: gcc ## Tests with real packets in network namespaces (needs root)
	@hack/apt.sh nft=nftables ip=iproute2 iptables-legacy=iptables ipset=ipset
	$(call heading,Tests with real packets)
	go test -race $(patience) ./internal/dataplane/... ./internal/agent/kerneltest ./internal/cli/lab/... ./internal/migrate/calico/leftovers/...

.PHONY: gcc
gcc: # which the race detector needs
	@hack/apt.sh gcc=gcc /usr/include/stdio.h=libc6-dev

.PHONY: test-cluster
test-cluster: ## Tests of the test cluster itself (2 minutes; needs root)
	go -C hack/cluster test -count=1 -v -tags=e2e ./e2e

.PHONY: e2e
e2e: bin/cluster ## The whole on a real cluster of its own (KEEP=1 keeps it; needs root)
	$(call heading,End to end)
	go -C e2e test -count=1 -v -timeout=2h -tags=e2e .
	$(call heading,A part of the chaos)
	go -C e2e test -count=1 -v -timeout=1h -short -run='^Test(Chaos|Latency|Images)$$' -tags=e2e ./chaos

.PHONY: chaos
chaos: bin/cluster ## Break every part on a cluster of its own, into docs/chaos.md (FOCUS='agents|etcd' ROLL=60 KEEP=1; 25 minutes; needs root)
	@hack/apt.sh conntrack=conntrack curl=curl
	$(call heading,Chaos)
	CHAOS_REPORT=$(CURDIR)/docs/chaos.md go -C e2e test -count=1 -v -timeout=60m -tags=e2e \
		-run='$(or $(chaos-focus),^Test(Chaos|Latency|Roles|Images)$$)' ./chaos

chaos-focus = $(if $(filter file,$(origin FOCUS)),,^TestChaos$$/($(subst $() ,_,$(FOCUS))))

.PHONY: soak
soak: bin/cluster ## Change without end, and what grows, into docs/chaos.md (MINUTES=30 RACE=1; needs root)
	$(call heading,Soak)
	CHAOS_REPORT=$(CURDIR)/docs/chaos.md MINUTES=$(MINUTES) RACE=$(RACE) go -C e2e test -count=1 -v -timeout=0 -tags=e2e -run='^TestSoak$$' ./chaos

.PHONY: conformance
conformance: bin/cluster ## Kubernetes' own suite on a cluster of its own (PROXY_MODE=nftables IP_FAMILIES=IPv4,IPv6 FOCUS=Netpol PROCS=4; 5 minutes; needs root)
	$(call heading,Conformance: $(FOCUS) with kube-proxy $(PROXY_MODE) and $(IP_FAMILIES))
	go -C e2e run ./conformance --proxy-mode=$(PROXY_MODE) --ip-families=$(IP_FAMILIES) --focus='$(FOCUS)' --procs=$(PROCS) --write=$(CURDIR)/docs/conformance.md

.PHONY: conformance-all
conformance-all: ## … under both proxies, with each family and both (30 minutes)
	for p in nftables iptables; do for f in IPv4 IPv6 IPv4,IPv6; do $(MAKE) conformance PROXY_MODE=$$p IP_FAMILIES=$$f || exit 1; done; done

.PHONY: conformance-short
conformance-short: ## … a part of it
	$(MAKE) conformance FOCUS='Netpol.*(default-deny|named port|except clause|updated|after they are deleted|Netpol API)'

dataplane-tests = ./internal/dataplane ./internal/dataplane/inspect ./internal/agent/kerneltest

.PHONY: test-kernels
test-kernels: bin/vm qemu ## The dataplane's tests on other kernels, in virtual machines (KERNELS=6.12,6.18,newest; 6 minutes each)
	$(call heading,Tests on Linux 6.1 and $(KERNELS))
	bin/vm --kernel=6.1 --tags=oldkernel --run=TestKernelThatIsTooOld ./internal/dataplane
	bin/vm --kernel=$(KERNELS) --tags=sctp,ownclock --write=docs/compatibility.md $(dataplane-tests)

.PHONY: test-kernels-short
test-kernels-short: bin/vm qemu ## … a part of it, on 6.12
	$(call heading,Tests on Linux 6.12)
	bin/vm --kernel=6.12 --tags=sctp,ownclock --skip='UnderTraffic|LargePolicies|EveryPacketIsJudged' $(dataplane-tests)

.PHONY: qemu
qemu:
	@hack/apt.sh qemu-system-x86_64=qemu-system-x86 nft=nftables

.PHONY: fuzz
fuzz: ## Random clusters, judged by us and by two engines of others (FLOWS=1000000 SEED=1)
	go -C hack/oracle run ./cmd/fuzz --flows=$(FLOWS) --seed=$(SEED)

# Numbers of inputs, and no time: at the end of one Go before 1.27 may fail by chance (go.dev/issue/75804), the sooner the busier the machine,
# and what it has kept of former runs may be all that there was time for.
.PHONY: fuzz-short
fuzz-short: ## Every fuzzer of the Go tests for a moment, a minute in all (FUZZTIME=1m: each for so long; needs root)
	for file in $$(grep -rlE '^func Fuzz' --include='*_test.go' internal); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\).*/\1/p' $$file); do \
			case $$name in FuzzCompiler) inputs=2000x ;; *) inputs=100000x ;; esac; \
			go test -run='^$$' -fuzz="^$$name$$" -fuzztime=$(or $(FUZZTIME),$$inputs) -fuzzminimizetime=10x ./$$(dirname $$file) || exit 1; \
		done; \
	done

.PHONY: bench
bench: ## What packets, changes and memory cost beside an empty program, nftables and nothing at all (6 minutes; needs root)
	@hack/apt.sh nft=nftables
	go test -run='^$$' -bench='^Benchmark(Packets|Connections)$$' -benchtime=300x ./internal/dataplane
	go test -run='^$$' -bench='^Benchmark(FirstPacket|Telling)$$' -benchtime=30x ./internal/dataplane
	go test -run='^$$' -bench='^BenchmarkEstablished$$' -benchtime=20000x ./internal/dataplane
	go test -run='^$$' -bench='^Benchmark(OneAddress|NodeFromNothing|AddressJoinsAndLeaves|FromNothing|MemoryOfAnAddress)$$' -benchtime=20x ./internal/dataplane ./internal/compiler
	go test -run='^$$' -bench='^BenchmarkChange$$' -benchtime=20x ./internal/agent/kerneltest

.PHONY: bench-scale
bench-scale: bin/cluster ## Large clusters, in memory and on a real API server, into docs/performance.md (10 minutes; ARGS=--quick: 1 minute, only shown)
	$(go-build) -o bin/ ./cmd/controller
	CGO_ENABLED=0 go -C hack/benchscale build -o $(CURDIR)/bin/ .
	assets=$$(bin/cluster assets) && KUBEBUILDER_ASSETS=$$assets bin/benchscale --controller=bin/controller $(or $(ARGS),--write=docs/performance.md)

.PHONY: lint
lint: ## golangci-lint over every module (a first time builds it: minutes)
	for m in $(code); do (cd $$m && $(tool) golangci-lint run ./...) || exit 1; done

.PHONY: verify
verify: verify-generated verify-format verify-plugin verify-modules verify-licenses verify-vulnerabilities ## Regenerate and compare, gofmt, go vet, go mod tidy, licences, known vulnerabilities

.PHONY: verify-generated
verify-generated: generate manifests
	git diff --exit-code -- $(generated)

.PHONY: verify-format
verify-format:
	@test -z "$$(gofmt -l .)" || { echo 'gofmt -w these:'; gofmt -l .; exit 1; }
	for m in $(code); do go -C $$m vet -tags=e2e,envtest,sctp,ownclock ./... || exit 1; done

.PHONY: verify-plugin
verify-plugin: # on every platform that krew installs it on
	for p in linux/arm64 darwin/amd64 darwin/arm64 windows/amd64; do \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} go vet ./cmd/kubectl-kidoban ./internal/cli/... || exit 1; done

.PHONY: verify-modules
verify-modules:
	for m in $(modules); do go -C $$m mod tidy -diff || exit 1; done

.PHONY: verify-licenses
verify-licenses: # of all that is linked into our binaries
	go -C hack/licenses run . $(CURDIR)

.PHONY: verify-vulnerabilities
verify-vulnerabilities: # of all that our binaries call; says so where the database cannot be reached
	@out=$$($(tool) govulncheck ./cmd/... 2>&1); status=$$?; echo "$$out"; \
	case "$$status $$out" in 0*) ;; \
	*'fetching vulnerabilities'*) echo 'NOT CHECKED: the database of vulnerabilities cannot be reached.' ;; \
	*) exit $$status ;; esac

##@ Try

.PHONY: demo
demo: bin/cluster ## A small shop on a cluster of its own: who reaches whom, before and after (KEEP=1 keeps it; needs root)
	go -C e2e run ./demo

.PHONY: lab
lab: build ## The demo's policies with real packets and without a cluster (needs root)
	bin/kubectl-kidoban lab -f examples/shop -f examples/shop/policies

.PHONY: cluster-up
cluster-up: bin/cluster ## Bring a cluster up on this machine (NODES=2 PROXY_MODE=nftables|iptables; needs root)
	bin/cluster up --nodes=$(NODES) --proxy-mode=$(PROXY_MODE)

.PHONY: cluster-deploy
cluster-deploy: image ## Build both halves and start them anew on that cluster
	bin/cluster load dist/$(ARCH)/controller.tar dist/$(ARCH)/agent.tar
	bin/cluster kubectl -- apply -k $(CURDIR)/config/overlays/local
	bin/cluster kubectl -- -n kidoban-system rollout restart deployment,daemonset
	bin/cluster kubectl -- -n kidoban-system rollout status --timeout=2m deployment/kidoban-controller
	bin/cluster kubectl -- -n kidoban-system rollout status --timeout=2m daemonset/kidoban-agent

.PHONY: cluster-down
cluster-down: bin/cluster ## Take it down, or what is left of it
	bin/cluster down

##@ Install, where kubectl points to (KUBECTL='bin/cluster kubectl --')

.PHONY: install
install: ## The CRDs alone
	$(KUBECTL) apply -k config/crd

.PHONY: deploy
deploy: ## Everything: CRDs, roles, controller, agents (OVERLAY=config/default)
	$(KUBECTL) apply -k $(OVERLAY)

.PHONY: uninstall
uninstall: ## Remove everything, from the nodes too (OVERLAY=config/default)
	$(KUBECTL) -n kidoban-system delete daemonset kidoban-agent --ignore-not-found --cascade=foreground
	$(KUBECTL) apply -k $(CLEANUP)
	$(KUBECTL) -n kidoban-cleanup rollout status --timeout=10m daemonset/kidoban-cleanup
	$(KUBECTL) delete --ignore-not-found -k $(OVERLAY)
	$(KUBECTL) delete --ignore-not-found -k $(CLEANUP)

.PHONY: bin/cluster bin/image bin/vm
bin/cluster bin/image bin/vm: bin/%:
	CGO_ENABLED=0 go -C hack/$* build -o $(CURDIR)/bin/ .
