// Package manifests tests what users apply without a cluster: every kustomization of config and examples renders and holds to what
// docs/configuration.md says; the CRDs can follow the last release's; the Terraform example and the workflows are well-formed.
package manifests
