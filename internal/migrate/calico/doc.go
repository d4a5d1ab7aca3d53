// Package calico knows what Calico's policies mean: it reads the parts of its API that decide about packets, and judges flows as
// Calico's documentation says.
//
// The API is projectcalico.org/v3 (https://docs.tigera.io/calico/latest/reference/resources), which clusters store as
// crd.projectcalico.org/v1. What is not known here is an error and never skipped: a field that is not read could be the one
// that refuses.
package calico
