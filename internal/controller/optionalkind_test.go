package controller

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// fakeVersion is a version of a kind. Its watches report nothing and end at once.
type fakeVersion struct {
	dynamic.ResourceInterface
	list func() ([]unstructured.Unstructured, error)
}

func (f *fakeVersion) List(context.Context, metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	items, err := f.list()
	return &unstructured.UnstructuredList{Items: items}, err
}

func (f *fakeVersion) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	w := watch.NewFake()
	w.Stop()
	return w, nil
}

// seen are the numbers of objects that were taken in, one after another.
type seen []int

func (s *seen) replace(all []unstructured.Unstructured) { *s = append(*s, len(all)) }
func (s *seen) change(*unstructured.Unstructured, bool) {}

var notFound = apierrors.NewNotFound(schema.GroupResource{Resource: "clusternetworkpolicies"}, "")

// One answer that the API server does not have a kind, between others, does not end its policies. Two do.
func TestAKindIsGoneAfterTwoAnswers(t *testing.T) {
	one := make([]unstructured.Unstructured, 1)
	for _, tc := range []struct {
		name    string
		answers []error
		want    seen
	}{
		{"one", []error{nil, notFound, nil}, seen{1, 1}},
		{"one, and an error of another kind", []error{nil, notFound, fmt.Errorf("away"), notFound, nil}, seen{1, 1}},
		{"two", []error{nil, notFound, notFound, nil}, seen{1, 0, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var got seen
				answers := tc.answers
				version := &fakeVersion{list: func() ([]unstructured.Unstructured, error) {
					if len(answers) == 0 {
						cancel()
						return nil, context.Canceled
					}
					err := answers[0]
					answers = answers[1:]
					return one, err
				}}
				kind := &optionalKind{versions: []dynamic.ResourceInterface{version}, log: logr.Discard(), objects: &got}
				if err := kind.Start(ctx); err != nil || !slices.Equal(got, tc.want) {
					t.Errorf("taken in were %v, want %v; %v", got, tc.want, err)
				}
			})
		})
	}
}

// Objects are still there when the API server stops serving the first version.
func TestAnotherVersionOfAKindIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var got seen
		var served atomic.Bool
		served.Store(true)
		of := func(isServed func() bool, n int) dynamic.ResourceInterface {
			return &fakeVersion{list: func() ([]unstructured.Unstructured, error) {
				if !isServed() {
					return nil, notFound
				}
				return make([]unstructured.Unstructured, n), nil
			}}
		}
		kind := &optionalKind{log: logr.Discard(), objects: &got, versions: []dynamic.ResourceInterface{
			of(served.Load, 1), of(func() bool { return true }, 2),
		}}
		go func() { _ = kind.Start(ctx) }()
		time.Sleep(time.Second / 2)
		served.Store(false)
		time.Sleep(time.Second)
		synctest.Wait()
		if want := (seen{1, 2}); !slices.Equal(got, want) {
			t.Errorf("taken in were %v, want %v", got, want)
		}
		cancel()
		synctest.Wait()
	})
}
