# `make help` lists the targets. Tools come from hack/go.mod, at the versions that it pins.

VERSION    ?= $(shell git describe --tags --always --dirty)
REVISION   ?= $(shell git rev-parse HEAD)
ARCH       ?= $(shell go env GOARCH)
TAG        ?= dev
REGISTRY   ?= kidoban.dev
NODES      ?= 2
PROXY_MODE ?= nftables
IP_FAMILIES ?= IPv4,IPv6
CNI        ?= ptp
FOCUS      ?= Netpol
PROCS      ?= 4
KERNELS    ?= 6.12,6.18,newest
KUBECTL    ?= kubectl
OVERLAY    ?= config/default
CLEANUP    ?= config/cleanup
FLOWS      ?= 1000000
SEED       ?= 1
MINUTES    ?= 30
SITE_ROOT  ?= /

# With the Amazon VPC CNI pods have one family.
comma = ,
families = $(if $(and $(filter vpc,$(CNI)),$(filter file,$(origin IP_FAMILIES))),IPv4,$(IP_FAMILIES))

tool     = go tool -modfile=$(CURDIR)/hack/go.mod
go-build = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w -X github.com/kidoban/kidoban/internal/version.Version=$(VERSION)'
# For all tests of a package, on a busy machine. The tests' own waits have their own limits.
patience = -timeout=1h
heading  = @printf '\n==> %s\n' '$(1)'

# An image with its labels, and its bill of materials beside it: (name, user, description). The Dockerfile builds the same image.
define pack
bin/image --platform=linux/$(ARCH) --tag=kidoban.dev/$(1):$(TAG) --user=$(2) --entrypoint=/$(1) \
	--output=dist/$(ARCH)/$(1).tar --sbom=dist/$(ARCH)/$(1).cdx.json \
	--label=org.opencontainers.image.title=kidoban-$(1) --label='org.opencontainers.image.description=$(3)' \
	--label=org.opencontainers.image.source=https://github.com/kidoban/kidoban --label=org.opencontainers.image.licenses=Apache-2.0 \
	--label=org.opencontainers.image.version=$(VERSION) --label=org.opencontainers.image.revision=$(REVISION) \
	dist/$(ARCH)/$(1):/$(1)
endef

modules = $(dir $(wildcard go.mod e2e/go.mod e2e/cnp/suite/go.mod hack/go.mod hack/*/go.mod))
# The modules that are vetted, linted and tested. (The others have hardly any code, and checking them loads all of Kubernetes.)
code = $(filter-out e2e/cnp/suite/ hack/ hack/e2eenv/ hack/helmenv/ hack/hubbleenv/ hack/nodeenv/ hack/testenv/,$(modules))

generated = api internal/stream internal/flow charts config/crd/bases config/rbac/role.yaml internal/dataplane/bpf docs/api.md docs/cli docs/configuration.md

# The generated BPF object depends on the version of the compiler.
export BPF2GO_CC    = clang-14
export BPF2GO_STRIP = llvm-strip-14

# Packages whose tests change the kernel's state and need root.
rooted = ./internal/dataplane/... ./internal/agent/kerneltest/... ./internal/cli/lab/... ./internal/migrate/calico/leftovers/...

SHELL := bash

.NOTPARALLEL:
.SUFFIXES:

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^##@/ { print "\n" substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

##@ Build

.PHONY: build
build: ## Build the static binaries into bin/
	$(go-build) -o bin/ ./cmd/...

ui = internal/ui/web

.PHONY: ui
ui: $(ui)/node_modules ## Check the types of the map's page, run its tests without a browser, and build it into internal/ui/dist
	cd $(ui) && node_modules/.bin/tsc && node test.mjs && node build.mjs

$(ui)/node_modules: $(ui)/package-lock.json $(ui)/.npmrc
	@hack/apt.sh node=nodejs npm=npm
	npm --prefix $(ui) ci
	touch $@

.PHONY: image
image: bin/image ## Pack the images into dist/ARCH/*.tar, without Docker (ARCH=arm64 TAG=dev)
	GOARCH=$(ARCH) $(go-build) -o dist/$(ARCH)/ ./cmd/controller ./cmd/agent ./cmd/observer
	$(call pack,controller,65532:65532,Resolves NetworkPolicies into PolicyEndpoints)
	$(call pack,agent,0:0,Enforces PolicyEndpoints on a node with eBPF)
	$(call pack,observer,65532:65532,Keeps the flows of all nodes and answers questions about them)

.PHONY: release
release: ## Build all files of a release into dist/release (VERSION=v0.1.0 REGISTRY=kidoban.dev)
	for arch in amd64 arm64; do $(MAKE) image ARCH=$$arch TAG=$(VERSION) VERSION=$(VERSION) || exit 1; done
	for p in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64; do \
		GOOS=$${p%/*} GOARCH=$${p#*/} $(go-build) -o dist/plugin/$$p/ ./cmd/kubectl-kidoban || exit 1; done
	hack/release.sh $(VERSION) $(REGISTRY)

.PHONY: push
push: bin/image ## Push the images of `make release` to a registry, for both architectures (VERSION=v0.1.0 REGISTRY=registry.example.com/kidoban; docker login first)
	for image in controller agent observer; do bin/image push $(REGISTRY)/$$image:$(VERSION) dist/{amd64,arm64}/$$image.tar || exit 1; done

.PHONY: release-check
release-check: ## Build a release twice, at two paths, compare every file and image, start the binaries, and push it to a registry on this machine (VERSION=v0.1.0; 10 minutes)
	hack/release-check.sh $(VERSION) $(REGISTRY)

.PHONY: generate
generate: ## Regenerate Go code: deep copies, the protocol of the stream, and the BPF objects (with Debian 12's clang)
	hack/apt.sh clang-14=clang-14 llvm-strip-14=llvm-14 /usr/include/bpf/bpf_helpers.h=libbpf-dev
	$(tool) controller-gen object paths=./api/...
	go generate ./...

upstream_crds = $$(go list -m -f '{{.Dir}}' sigs.k8s.io/network-policy-api)/config/crd
upstream_crd = policy.networking.k8s.io_clusternetworkpolicies.yaml

.PHONY: manifests
manifests: ## Regenerate the CRDs and the controller's role from the code's markers, copy upstream's CRD, and make the chart
	$(tool) controller-gen crd paths=./api/... output:crd:dir=config/crd/bases
	$(tool) controller-gen rbac:roleName=kidoban-controller paths=./internal/controller/... output:rbac:dir=config/rbac
	install -m 644 $(upstream_crds)/standard/$(upstream_crd) config/components/cluster-network-policy/
	install -m 644 $(upstream_crds)/experimental/$(upstream_crd) config/components/cluster-network-policy-experimental/
	go -C hack/manifests run ./chart $(CURDIR)

.PHONY: docs-site
docs-site: ## Build the documentation as a site in dist/site, and check its links; needs Node.js 20 (VERSION=main SITE_ROOT=/; half a minute)
	SITE_ROOT=$(SITE_ROOT) hack/site/build.sh $(if $(filter file,$(origin VERSION)),main,$(VERSION))

.PHONY: clean
clean: ## Remove bin and dist (the test cluster's binaries stay in the user's cache directory)
	rm -rf bin dist

##@ Test

.PHONY: test
test: test-unit fuzz-short test-envtest test-dataplane test-kernels-short e2e conformance-short conformance-cnp-short ## All tests that a change must pass (needs root)

.PHONY: test-long
test-long: ## The suites that take long, one after another: release-check (of a commit), test-ui, test-map, test-replay, test-helm, test-hostile, test-hubble, test-postgres, test-answers, test-dns, test-cni, chaos, churn, early, soak, conformance-all, conformance-cnp-all, test-kernels (4 hours; needs root)
	$(MAKE) release-check VERSION=v0.0.0 # first: it wants a clean tree, and others write their results into pages
	for suite in test-ui test-map test-replay test-helm test-hostile test-hubble test-postgres test-answers test-dns test-cni chaos churn early soak conformance-all conformance-cnp-all test-kernels; do $(MAKE) $$suite || exit 1; done

.PHONY: test-unit
test-unit: gcc ## Unit tests of every module, with the race detector
	$(call heading,Unit tests)
	go test -race $(patience) $$(go list ./... | grep -vxFf <(go list $(rooted)))
	for m in $(filter-out ./,$(code)); do go -C $$m test -race $(patience) -count=1 ./... || exit 1; done # they read files that Go's test cache does not know

.PHONY: test-envtest
test-envtest: gcc bin/cluster ## Tests on a real API server (the first run builds Kubernetes: 10 minutes)
	$(call heading,Tests on a real API server)
	assets=$$(bin/cluster assets) && KUBEBUILDER_ASSETS=$$assets go test -race $(patience) -tags=envtest ./api/... ./cmd/controller/... ./internal/controller/...

.PHONY: test-dataplane
test-dataplane: gcc ## Tests with real packets in network namespaces (needs root)
	@hack/apt.sh nft=nftables ip=iproute2 iptables-legacy=iptables ipset=ipset
	$(call heading,Tests with real packets)
	go test -race $(patience) $(rooted)

.PHONY: test-ui
test-ui: ui ## The map in a real browser, and its pictures in docs/ui (3 minutes)
	@hack/apt.sh chromium=chromium
	$(call heading,The map in a browser)
	SCREENSHOTS=$(CURDIR)/docs/ui go -C hack/uitest test -count=1 -tags=browser -timeout=20m .

.PHONY: test-map
test-map: ui bin/cluster ## The map of a cluster's shop in a real browser, beside measured connections (6 minutes; needs root)
	@hack/apt.sh chromium=chromium
	$(call heading,The map of a cluster)
	go -C e2e test -count=1 -v -timeout=30m -tags='e2e browser' -run='^TestMap$$' .

.PHONY: test-replay
test-replay: bin/cluster ## Recorded connections of a cluster's shop, replayed under other policies that are then applied, and policies recommended from them (6 minutes; needs root)
	$(call heading,Replay and recommend)
	go -C e2e test -count=1 -v -timeout=40m -tags=e2e,recorded -run='^TestReplayAndRecommend$$' .

# What a tenant could do to others, with more of everything than the part that the other targets run: tests named TestHostile….
.PHONY: test-hostile
test-hostile: bin/cluster ## Attacks by tenants: connections, objects and packets made to stop or open others (needs root)
	@hack/apt.sh nft=nftables ip=iproute2
	$(call heading,Hostile tenants)
	assets=$$(bin/cluster assets) && KUBEBUILDER_ASSETS=$$assets go test -tags=hostile,envtest $(patience) -count=1 -run='^TestHostile' ./...

.PHONY: test-helm
test-helm: bin/cluster ## Install, upgrade, roll back and uninstall with Helm, and move from kustomize and back, under traffic (5 minutes; needs root)
	$(call heading,Helm)
	CGO_ENABLED=0 go -C hack/helmenv build -trimpath -o $(CURDIR)/bin/ helm.sh/helm/v4/cmd/helm
	go -C e2e test -count=1 -v -timeout=1h -tags=e2e,helm -run='^TestHelm$$' .

.PHONY: test-hubble
test-hubble: bin/cluster ## The hubble command, of two releases, against an observer's API, and on a cluster (5 minutes, the first run 10; needs root)
	$(call heading,Hubble)
	go -C hack/hubble test $(patience) -count=1 -tags=hubble ./...
	go -C e2e test -count=1 -v -timeout=30m -tags=e2e,hubble -run='^TestHubble$$' .

.PHONY: test-postgres
test-postgres: ## The observer's store in PostgreSQL, on a server of its own that is killed under load (a minute; as root it runs as postgres)
	@hack/apt.sh '/usr/lib/postgresql=postgresql'
	$(call heading,PostgreSQL)
	go test $(patience) -count=1 -tags=postgres ./internal/observer/postgres

.PHONY: test-answers
test-answers: ## What explain, diff and replay print of drawn manifests, compared with real packets (MANIFESTS=32; 5 minutes; needs root)
	go test $(patience) -count=1 -v -run='^TestPacketsAgreeWithExplainAndDiff$$' ./internal/cli/lab -manifests=$(or $(MANIFESTS),32)

.PHONY: test-dns
test-dns: ## First packets after DNS answers, 10,000 over UDP and TCP each, and random DNS messages, compared with a second reader (MESSAGES=10000000; an hour; needs root)
	go test $(patience) -count=1 -v -run='^TestEveryFirstPacketAfterItsAnswer$$' ./internal/dataplane -first-packets=10000
	go test $(patience) -count=1 -timeout=3h -v -run='^TestHostileAnswers$$' ./internal/dataplane -hostile-answers=$(or $(MESSAGES),10000000)

.PHONY: gcc
gcc: # the race detector needs it
	@hack/apt.sh gcc=gcc /usr/include/stdio.h=libc6-dev

.PHONY: test-cluster
test-cluster: ## Tests of the test cluster itself (2 minutes; needs root)
	go -C hack/cluster test -count=1 -v -tags=e2e ./e2e

.PHONY: e2e
e2e: bin/cluster ## Everything together on a cluster of its own (KEEP=1 keeps it; needs root)
	$(call heading,End to end)
	go -C e2e test -count=1 -v -timeout=2h -tags=e2e .
	$(call heading,A part of the chaos tests)
	go -C e2e test -count=1 -v -timeout=1h -short -run='^Test(Chaos|Churn|Early|Latency|Images)$$' -tags=e2e ./chaos

.PHONY: chaos
chaos: bin/cluster ## Break every part of a cluster, results into docs/chaos.md (FOCUS='agents|etcd' ROLL=60 KEEP=1; 25 minutes; needs root)
	@hack/apt.sh conntrack=conntrack curl=curl
	$(call heading,Chaos)
	CHAOS_REPORT=$(CURDIR)/docs/chaos.md go -C e2e test -count=1 -v -timeout=60m -tags=e2e \
		-run='$(or $(chaos-focus),^Test(Chaos|Latency|Roles|Images)$$)' ./chaos

chaos-focus = $(if $(filter file,$(origin FOCUS)),,^TestChaos$$/($(subst $() ,_,$(FOCUS))))

.PHONY: churn
churn: bin/cluster ## Pods, Jobs, ports and policies that come and go, results into docs/chaos.md (FOCUS='Jobs|hostPort' KEEP=1; an hour; needs root)
	$(call heading,Churn)
	CHAOS_REPORT=$(CURDIR)/docs/chaos.md go -C e2e test -count=1 -v -timeout=3h -tags=e2e \
		-run='^TestChurn$$$(churn-focus)' ./chaos

churn-focus = $(if $(filter file,$(origin FOCUS)),,/($(subst $() ,_,$(FOCUS))))

.PHONY: early
early: bin/cluster ## First packets of new pods: with the hold, announced, without the stream, with a far API server; results into docs/chaos.md (PODS=200 FOCUS='leader|kinds' KEEP=1; 90 minutes; needs root)
	$(call heading,First packets of new pods)
	EARLY_REPORT=$(CURDIR)/docs/chaos.md go -C e2e test -count=1 -v -timeout=4h -tags=e2e -run='^TestEarly$$$(churn-focus)' ./chaos

.PHONY: soak
soak: bin/cluster ## Keep changing objects and measure growth, results into docs/chaos.md (MINUTES=30 RACE=1; needs root)
	$(call heading,Soak)
	CHAOS_REPORT=$(CURDIR)/docs/chaos.md MINUTES=$(MINUTES) RACE=$(RACE) go -C e2e test -count=1 -v -timeout=0 -tags=e2e -run='^TestSoak$$' ./chaos

.PHONY: conformance
conformance: bin/cluster ## Kubernetes' own policy tests on a cluster of its own (PROXY_MODE=nftables CNI=ptp IP_FAMILIES=IPv4,IPv6 FOCUS=Netpol PROCS=4; 5 minutes; needs root)
	$(call heading,Conformance: $(FOCUS) with kube-proxy $(PROXY_MODE) and CNI $(CNI) and $(families))
	go -C e2e run ./conformance --proxy-mode=$(PROXY_MODE) --cni=$(CNI) --ip-families=$(families) --focus='$(FOCUS)' --procs=$(PROCS) --write=$(CURDIR)/docs/conformance.md

.PHONY: conformance-cnp
conformance-cnp: bin/cluster ## Upstream's conformance suite of ClusterNetworkPolicy on a cluster of its own (PROXY_MODE=nftables IP_FAMILIES=IPv4,IPv6; needs root)
	$(call heading,Conformance: ClusterNetworkPolicy with kube-proxy $(PROXY_MODE) and $(families))
	go -C e2e run ./cnp --proxy-mode=$(PROXY_MODE) --ip-families=$(families) --page=$(CURDIR)/docs/conformance.md \
		$(if $(filter nftables/IPv4$(comma)IPv6,$(PROXY_MODE)/$(families)),--write=$(CURDIR)/docs/conformance/clusternetworkpolicy.yaml)

.PHONY: conformance-cnp-all
conformance-cnp-all: ## … under both proxies, with each family and both (an hour)
	for p in nftables iptables; do for f in IPv4 IPv6 IPv4,IPv6; do $(MAKE) conformance-cnp PROXY_MODE=$$p IP_FAMILIES=$$f || exit 1; done; done

.PHONY: conformance-cnp-short
conformance-cnp-short: bin/cluster ## … a part of it
	$(call heading,Conformance: a part of ClusterNetworkPolicy)
	go -C e2e run ./cnp --proxy-mode=$(PROXY_MODE) --ip-families=$(families) --only=CNPAdminTierPriorityField,CNPAdminTierSamePriority,CNPAdminTierIntegration,CNPAdminTierEgressNodePeers

.PHONY: conformance-all
conformance-all: ## … under both proxies, with each family and both (30 minutes)
	for p in nftables iptables; do for f in IPv4 IPv6 IPv4,IPv6; do $(MAKE) conformance PROXY_MODE=$$p IP_FAMILIES=$$f || exit 1; done; done

.PHONY: conformance-short
conformance-short: ## … a part of it
	$(MAKE) conformance FOCUS='Netpol.*(default-deny|named port|except clause|updated|after they are deleted|Netpol API)'

# Each layout's flags, and the tests that run on it. Of the last two, one's pods get their network from a plugin that waits for policies, and
# the other's container runtime waits for the agent.
cni-tests = Shop|Policies|Modes|Revocation|Changes
vpc-tests = VPCRules|$(cni-tests)
define cni_layouts
--cni=bridge;$(cni-tests)
--cni=flannel;$(cni-tests)
--cni=vpc --ip-families=IPv4;$(vpc-tests)
--cni=vpc --ip-families=IPv6;$(vpc-tests)
--cni=vpc --ip-families=IPv4 --vpc-egress;$(vpc-tests)|SecondInterface
--cni=vpc --ip-families=IPv6 --vpc-egress;$(vpc-tests)|SecondInterface
--cni=vpc --ip-families=IPv4 --vpc-policy-mode=standard;$(vpc-tests)|Reboot
--nri-required=kidoban;Boot
endef
export cni_layouts

.PHONY: test-cni
test-cni: bin/cluster ## Main tests with the Amazon VPC CNI, bridge and flannel's layout, results into docs/compatibility.md (LAYOUT='--cni=vpc.*IPv6': those alone; needs root)
	while IFS=';' read -r flags tests; do \
		[[ $$flags =~ $(or $(LAYOUT),.) ]] || continue; \
		printf '\n==> %s\n' "$$flags"; \
		CLUSTER=cni CLUSTER_FLAGS=$$flags CNI_REPORT=$(CURDIR)/docs/compatibility.md \
			go -C e2e test -count=1 -v -timeout=2h -tags=e2e,vpc -run="^Test($$tests)$$" . </dev/null || exit 1; \
	done <<<"$${cni_layouts}"
	for cni in bridge flannel vpc; do $(MAKE) conformance CNI=$$cni $(if $(filter file,$(origin FOCUS)),FOCUS='Netpol.*(default-deny|named port|except clause)') || exit 1; done

dataplane-tests = ./internal/dataplane ./internal/dataplane/inspect ./internal/agent/kerneltest

# Tests with minutes of traffic.
traffic-tests = UnderTraffic|LargePolicies|EveryPacketIsJudged|NoWriteLeavesHalfAPolicy

# On arm64, one kernel unless KERNELS is given, and without those.
kernels = $(if $(and $(filter arm64,$(ARCH)),$(filter file,$(origin KERNELS))),6.12,$(KERNELS))

.PHONY: test-kernels
test-kernels: bin/vm qemu programs ## The dataplane's tests on other kernels, in virtual machines (KERNELS=6.12,6.18,newest; ARCH=arm64: on 6.12, without the longest; 6 minutes each)
	$(call heading,Tests on Linux 6.1 and $(kernels) for $(ARCH))
	bin/vm --arch=$(ARCH) --kernel=6.1 --tags=oldkernel --run=TestKernelThatIsTooOld ./internal/dataplane
	CGO_ENABLED=0 GOARCH=$(ARCH) go -C hack/vpcenv build -o $(CURDIR)/dist/$(ARCH)/ github.com/aws/amazon-vpc-cni-k8s/cmd/routed-eni-cni-plugin
	bin/vm --arch=$(ARCH) --kernel=$(kernels) --tags=sctp,ownclock,tunnels,vlan $(start) \
		--cni-plugin=dist/$(ARCH)/routed-eni-cni-plugin $(if $(filter arm64,$(ARCH)),--timeout=3h --skip='$(traffic-tests)') --write=docs/compatibility.md $(dataplane-tests)

# What depends on the kernel's version, in two parts of about the same length. Emulation is slow: all tests are in test-kernels.
short-packets = Bridge|Connections|EncapsulationByProtocol|FamiliesAreApart|Fragments|HostilePackets|ICMPErrorsOfAllowedFlows|InnerPacketWithAPodsAddress|LocalInOnlyWithTunnels|\
OptionsAndExtensionHeaders|PathMTUDiscovery|SCTP|SCTPAssociations|ServicesAreJudgedByTheirBackends|SourceRoutes|SpoofedSources|TaggedFrames|TunnelWithoutEnds|VPCLayout|\
APodReachesItselfThroughItsService|APodsTrafficToItsOwnNodeIsJudgedByClusterPoliciesOnly|SpoofedSourcesDoNotReachTheOwnNode|AuditedPoliciesChangeNoPacket
short-others = AGenerationOutlivesItsProcess|ALaterGenerationWins|AnswersOverTCP|AttachFindsAFreePriority|CapabilitiesSuffice|Cleanup|ConntrackHeals|EachEndOfAConnectionIsRecorded|EventContents|\
FailClosed|HoldingEnds|LateReplies|NamesExpire|NodeLocalDNS|ReadInterfaces|RecordsFollowThePoliciesInForce|RuleHits|RulesByNameStandInOrder|SyncHealsAndCounts|\
TheFirstPacketAfterTheAnswerPasses|TheVerifiersFigures|WatchInterfaces

# Emulated arm64 is slow, too: one of each kind.
arm64-tests = Bridge|Connections|FamiliesAreApart|Fragments|HostilePackets|ICMPErrorsOfAllowedFlows|PathMTUDiscovery|ServicesAreJudgedByTheirBackends|SpoofedSources|VPCLayout|\
AGenerationOutlivesItsProcess|AttachFindsAFreePriority|AuditedPoliciesChangeNoPacket|CapabilitiesSuffice|EventContents|RuleHits|SyncHealsAndCounts|\
TheFirstPacketAfterTheAnswerPasses|TheVerifiersFigures

# What starts in the machine: the programs of the images for another architecture.
.PHONY: programs
programs:
	GOARCH=$(ARCH) $(go-build) -o dist/$(ARCH)/ ./cmd/controller ./cmd/agent ./cmd/observer

start = --start=dist/$(ARCH)/controller,dist/$(ARCH)/agent,dist/$(ARCH)/observer

.PHONY: test-kernels-short
test-kernels-short: bin/vm qemu $(if $(filter arm64,$(ARCH)),programs) ## … a part of it, on 6.12, in two machines at once: emulation mostly uses one core (ARCH=arm64: a smaller part, and its row)
	$(call heading,Tests on Linux 6.12 for $(ARCH))
	@mkdir -p dist
	$(if $(filter arm64,$(ARCH)),bin/vm --arch=$(ARCH) --kernel=6.12 --timeout=3h --tags=sctp$(comma)ownclock$(comma)tunnels$(comma)vlan $(start) \
		--run='^Test($(subst $() ,,$(arm64-tests)))$$' --part --write=docs/compatibility.md $(dataplane-tests),$(short-amd64))

define short-amd64
some() { bin/vm --kernel=6.12 --tags=sctp,ownclock,tunnels --run="^Test($$1)\$$" $(dataplane-tests); }; \
	some '$(subst $() ,,$(short-packets))' >dist/vm.out 2>&1 & first=$$!; \
	some '$(subst $() ,,$(short-others))'; rest=$$?; \
	wait $$first; first=$$?; cat dist/vm.out; exit $$((first + rest))
endef

.PHONY: qemu
qemu:
	@hack/apt.sh $(if $(filter arm64,$(ARCH)),qemu-system-aarch64=qemu-system-arm,qemu-system-x86_64=qemu-system-x86) nft=nftables

.PHONY: fuzz
fuzz: ## Compare decisions with two other engines on random clusters (FLOWS=1000000 SEED=1)
	go -C hack/oracle run ./cmd/fuzz --flows=$(FLOWS) --seed=$(SEED)

# A number of inputs instead of a time: at the end of a time, Go before 1.27 may fail by chance (go.dev/issue/75804), more often on a
# busy machine, and inputs cached by earlier runs may use up all of the time.
.PHONY: fuzz-short
fuzz-short: ## Run every Go fuzz test briefly, a minute in total (FUZZTIME=1m: each for that time; needs root)
	for file in $$(grep -rlE '^func Fuzz' --include='*_test.go' internal); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\).*/\1/p' $$file); do \
			case $$name in FuzzCompiler | FuzzCost) inputs=2000x ;; *) inputs=100000x ;; esac; \
			go test -run='^$$' -fuzz="^$$name$$" -fuzztime=$(or $(FUZZTIME),$$inputs) -fuzzminimizetime=10x ./$$(dirname $$file) || exit 1; \
		done; \
	done

.PHONY: bench
bench: ## Cost of packets, changes and memory beside an empty program, nftables and no program (6 minutes; needs root)
	@hack/apt.sh nft=nftables
	go test -run='^$$' -bench='^Benchmark(Packets|OwnNode|Connections)$$' -benchtime=300x ./internal/dataplane
	go test -run='^$$' -bench='^Benchmark(FirstPacket|FirstPacketByName|Tiers|Report|Records|Audited)$$' -benchtime=30x ./internal/dataplane
	go test -run='^$$' -bench='^Benchmark(Answers|MemoryOfNames)$$' -benchtime=10x ./internal/dataplane
	go test -run='^$$' -bench='^BenchmarkEstablished$$' -benchtime=20000x ./internal/dataplane
	go test -run='^$$' -bench='^Benchmark(OneAddress|NodeFromNothing|AddressJoinsAndLeaves|FromNothing|MemoryOfAnAddress)$$' -benchtime=20x ./internal/dataplane ./internal/compiler
	go test -run='^$$' -bench='^BenchmarkChange$$' -benchtime=20x ./internal/agent/kerneltest

.PHONY: bench-replay
bench-replay: ## Replay a day of 10 million records (1 minute)
	go test -run='^$$' -bench='^BenchmarkReplay$$' -benchtime=1x ./internal/replay

.PHONY: bench-ui
bench-ui: ui ## Large maps in a real browser beside a plain canvas and Cytoscape, results into docs/performance.md (2 minutes)
	@hack/apt.sh chromium=chromium
	PERFORMANCE=$(CURDIR)/docs/performance.md go -C hack/uitest test -count=1 -v -tags=browser -timeout=20m -run='^TestSpeed$$' . -rounds=3

.PHONY: bench-beside
bench-beside: ## Cost of packets beside the build of an older commit, in turn: medians and ratios (OLD=commit ROUNDS=12; 8 minutes; needs root)
	hack/bench-beside.sh '$(or $(OLD),$(error give OLD=commit))' $(or $(ROUNDS),12) '^BenchmarkEstablished$$' 20000x '^BenchmarkFirstPacket$$/.*/peers=100$$' 20x

.PHONY: bench-observer
bench-observer: ## The observer under the load of 200 nodes, and questions about 10 million records (10 minutes, 4 GiB of disk; RECORDS=10000000)
	@hack/apt.sh '/usr/lib/postgresql=postgresql'
	go test -run='^$$' -bench='^BenchmarkLoad$$' -benchtime=1x ./internal/observer/ingest
	go test -run='^$$' -bench='^BenchmarkReplicas$$' -benchtime=1x -tags=postgres ./internal/observer/postgres
	go test -run='^$$' -bench='^BenchmarkDay$$' -benchtime=1x -timeout=30m ./internal/observer/flows -rows=$(or $(RECORDS),10000000)

.PHONY: bench-scale
bench-scale: bin/cluster ## Large clusters, in memory and on a real API server, results into docs/performance.md (10 minutes; ARGS=--quick: 1 minute, prints only)
	$(go-build) -o bin/ ./cmd/controller
	CGO_ENABLED=0 go -C hack/benchscale build -o $(CURDIR)/bin/ .
	assets=$$(bin/cluster assets) && KUBEBUILDER_ASSETS=$$assets bin/benchscale --controller=bin/controller $(or $(ARGS),--write=docs/performance.md)

.PHONY: bench-fleet
bench-fleet: bin/cluster ## 300 agents beside as many clients with kube-proxy's watches, on a real API server, results into docs/performance.md (ARGS=--quick: small, prints only)
	$(go-build) -o bin/ ./cmd/controller
	CGO_ENABLED=0 go -C hack/benchscale build -o $(CURDIR)/bin/ .
	assets=$$(bin/cluster assets) && KUBEBUILDER_ASSETS=$$assets bin/benchscale --controller=bin/controller --only=fleet --cluster=300,1500,6000 $(or $(ARGS),--write=docs/performance.md)

.PHONY: lint
lint: ## Run golangci-lint in every module (the first run builds it: minutes)
	for m in $(code); do (cd $$m && $(tool) golangci-lint run ./...) || exit 1; done

.PHONY: verify
verify: verify-generated verify-ui verify-format verify-words verify-plugin verify-modules verify-licenses verify-vulnerabilities ## Check generated files, gofmt, go vet, words, go mod tidy, licences and known vulnerabilities

.PHONY: verify-generated
verify-generated: generate manifests
	git diff --exit-code -- $(generated)

.PHONY: verify-ui
verify-ui: ui # the committed page, and no registry in the lock file
	! grep '"resolved"' $(ui)/package-lock.json
	git diff --exit-code -- internal/ui/dist
	test -z "$$(git status --porcelain -- internal/ui/dist)"

.PHONY: verify-format
verify-format:
	@test -z "$$(gofmt -l .)" || { echo 'gofmt -w these:'; gofmt -l .; exit 1; }
	for m in $(code); do go -C $$m vet -tags=browser,e2e,envtest,helm,hostile,hubble,postgres,release,sctp,ownclock,recorded,tunnels,vlan,vpc ./... || exit 1; done

.PHONY: verify-words
verify-words: # hack/words.txt in pages and code, and the width of pages' lines
	go -C hack/docs test -count=1 -run='^TestWords' .

.PHONY: verify-plugin
verify-plugin: # on every platform for which krew installs it
	for p in linux/arm64 darwin/amd64 darwin/arm64 windows/amd64; do \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} go vet ./cmd/kubectl-kidoban ./internal/cli/... || exit 1; done

.PHONY: verify-modules
verify-modules:
	for m in $(modules); do go -C $$m mod tidy -diff || exit 1; done

.PHONY: verify-licenses
verify-licenses: # of everything that the binaries link
	go -C hack/licenses run . $(CURDIR)

.PHONY: verify-vulnerabilities
verify-vulnerabilities: # in the code that the binaries call, and in npm packages; prints NOT CHECKED if a database cannot be reached
	@hack/apt.sh node=nodejs npm=npm
	@hack/audit.sh 'fetching vulnerabilities' $(tool) govulncheck ./cmd/...
	@for dir in $(ui) hack/site; do \
		hack/audit.sh 'audit endpoint returned an error' npm --prefix $$dir audit --package-lock-only --audit-level=high || exit 1; done

##@ Try

.PHONY: demo
demo: bin/cluster ## A small shop on a cluster of its own: its connections before and after policies (KEEP=1 keeps it; needs root)
	go -C e2e run ./demo

.PHONY: lab
lab: ## The demo's policies with real packets, without a cluster (needs root)
	$(go-build) -o bin/ ./cmd/kubectl-kidoban
	bin/kubectl-kidoban lab -f examples/shop -f examples/shop/policies

.PHONY: cluster-up
cluster-up: bin/cluster ## Start a cluster on this machine (NODES=2 PROXY_MODE=nftables|iptables CNI=ptp|bridge|flannel|vpc IP_FAMILIES=IPv4,IPv6; needs root)
	bin/cluster up --nodes=$(NODES) --proxy-mode=$(PROXY_MODE) --cni=$(CNI) --ip-families=$(families)

.PHONY: cluster-deploy
cluster-deploy: image ## Build controller and agent, and restart them on that cluster
	bin/cluster load dist/$(ARCH)/controller.tar dist/$(ARCH)/agent.tar
	bin/cluster kubectl -- apply -k $(CURDIR)/config/overlays/local
	bin/cluster kubectl -- -n kidoban-system rollout restart deployment,daemonset
	bin/cluster kubectl -- -n kidoban-system rollout status --timeout=2m deployment/kidoban-controller
	bin/cluster kubectl -- -n kidoban-system rollout status --timeout=2m daemonset/kidoban-agent

.PHONY: cluster-down
cluster-down: bin/cluster ## Stop the cluster, or remove its remains
	bin/cluster down

##@ Install into kubectl's current cluster (KUBECTL='bin/cluster kubectl --')

.PHONY: install
install: ## Install the CRDs only
	$(KUBECTL) apply -k config/crd

.PHONY: deploy
deploy: ## Install everything: CRDs, roles, controller, agents (OVERLAY=config/default)
	$(KUBECTL) apply -k $(OVERLAY)

.PHONY: uninstall
uninstall: ## Remove everything, also from the nodes (OVERLAY=config/default)
	$(KUBECTL) -n kidoban-system delete daemonset kidoban-agent --ignore-not-found --cascade=foreground
	$(KUBECTL) apply -k $(CLEANUP)
	$(KUBECTL) -n kidoban-cleanup rollout status --timeout=10m daemonset/kidoban-cleanup
	$(KUBECTL) delete --ignore-not-found -k $(OVERLAY)
	$(KUBECTL) delete --ignore-not-found -k $(CLEANUP)

.PHONY: bin/cluster bin/image bin/vm
bin/cluster bin/image bin/vm: bin/%:
	CGO_ENABLED=0 go -C hack/$* build -o $(CURDIR)/bin/ .
