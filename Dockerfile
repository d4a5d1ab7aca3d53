# syntax=docker/dockerfile:1
#
#   docker buildx build --platform=linux/amd64,linux/arm64 --sbom=true --target=controller --build-arg=VERSION=v0.1.0 .
#   docker buildx build --platform=linux/amd64,linux/arm64 --sbom=true --target=agent      --build-arg=VERSION=v0.1.0 .
#   docker buildx build --platform=linux/amd64,linux/arm64 --sbom=true --target=observer   --build-arg=VERSION=v0.1.0 .
#
# `make image` packs the same binaries without Docker, with a bill of materials beside each. The BPF objects are in the tree: no
# clang here. BuildKit gives the same bytes each time with SOURCE_DATE_EPOCH=0 and --output=type=image,rewrite-timestamp=true.

# The compiler runs on the builder's own platform and compiles for the target's.
FROM --platform=$BUILDPLATFORM golang:1.26.8 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod \
    go mod download
COPY api api
COPY cmd cmd
COPY internal internal
ARG TARGETOS TARGETARCH
ARG VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
      -ldflags="-s -w -X github.com/kidoban/kidoban/internal/version.Version=$VERSION" \
      -o /out/ ./cmd/controller ./cmd/agent ./cmd/observer

FROM scratch AS image
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.source="https://github.com/kidoban/kidoban" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

FROM image AS controller
LABEL org.opencontainers.image.title="kidoban-controller" \
      org.opencontainers.image.description="Resolves NetworkPolicies into PolicyEndpoints"
COPY --from=build /out/controller /controller
USER 65532:65532
ENTRYPOINT ["/controller"]

FROM image AS observer
LABEL org.opencontainers.image.title="kidoban-observer" \
      org.opencontainers.image.description="Keeps the flows of all nodes and answers questions about them"
COPY --from=build /out/observer /observer
USER 65532:65532
ENTRYPOINT ["/observer"]

# Root, with the few capabilities that config/agent gives it.
FROM image AS agent
LABEL org.opencontainers.image.title="kidoban-agent" \
      org.opencontainers.image.description="Enforces PolicyEndpoints on a node with eBPF"
COPY --from=build /out/agent /agent
USER 0:0
ENTRYPOINT ["/agent"]
