package lint

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/cli/model"
)

// AnnotationIgnore of a policy or a namespace has names of checks, between commas, whose findings about that object are left out.
const AnnotationIgnore = "kidoban.dev/lint-ignore"

// ignored are the checks that an object's annotation names.
func ignored(o metav1.Object) (names []string) {
	for _, name := range strings.Split(o.GetAnnotations()[AnnotationIgnore], ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// annotated are the objects that may have the annotation, as findings describe them.
func (l *linter) annotated(yield func(object string, o metav1.Object)) {
	for i := range l.cluster.Policies {
		yield(object(&l.cluster.Policies[i]), &l.cluster.Policies[i])
	}
	for i := range l.cluster.ClusterPolicies {
		yield(model.Describe(model.ClusterPolicyKind, &l.cluster.ClusterPolicies[i]), &l.cluster.ClusterPolicies[i])
	}
	for i := range l.cluster.Namespaces {
		yield(model.Describe("Namespace", &l.cluster.Namespaces[i]), &l.cluster.Namespaces[i])
	}
}

// isSuppressed reports whether the annotation of a finding's object leaves it out.
func (l *linter) isSuppressed(f Finding) bool {
	if l.ignores == nil {
		l.ignores = map[string][]string{}
		l.annotated(func(object string, o metav1.Object) {
			if names := ignored(o); len(names) > 0 {
				l.ignores[object] = names
			}
		})
	}
	return slices.Contains(l.ignores[f.Object], f.Check)
}

// unknownCheck finds annotations that name no check: what they should leave out is reported all the same.
func (l *linter) unknownCheck() {
	l.annotated(func(object string, o metav1.Object) {
		for _, name := range ignored(o) {
			if !has(l.checks, name) {
				l.found(Warning, object, "metadata.annotations", "Correct the name: lint --list-checks prints all.",
					"The annotation %s names %q, and there is no such check", AnnotationIgnore, name)
			}
		}
	})
}
