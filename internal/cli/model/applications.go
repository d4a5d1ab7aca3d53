package model

import (
	"cmp"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
)

var applicationType = metav1.TypeMeta{APIVersion: application.Group + "/" + application.Version, Kind: application.Kind}

// addApplication adds an ApplicationNetworkPolicy of a manifest.
func (m *Manifests) addApplication(i *item) error {
	p := &application.Policy{}
	strict, err := kjson.UnmarshalStrict(i.raw, p)
	if err != nil {
		return err
	}
	if err := errors.Join(serious(strict, p, true)...); err != nil {
		return err
	}
	p.Namespace = cmp.Or(p.Namespace, m.Namespace)
	m.AddApplication(p)
	m.applications = append(m.applications, i.describe())
	return nil
}

// AddApplication adds an ApplicationNetworkPolicy, which is evaluated as a NetworkPolicy with domain names.
func (m *Manifests) AddApplication(p *application.Policy) {
	np := p.NetworkPolicy()
	m.cluster.Policies = append(m.cluster.Policies, *np)
	for j := range np.Spec.Egress {
		for _, text := range application.DomainNames(np, j) {
			if _, err := policy.CanonicalDomainName(text); err != nil {
				m.Notes = append(m.Notes, application.Kind+" "+p.Namespace+"/"+p.Name+": "+err.Error()+"; it matches nothing")
			}
		}
	}
}
