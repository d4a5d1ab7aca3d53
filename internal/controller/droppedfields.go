package controller

import (
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/recorder"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// DroppedFields reports fields that the API server drops from objects that the controller writes, because their CRD is older than the
// controller. The write succeeds without the field, and the API server answers with a warning.
type DroppedFields struct {
	log logr.Logger

	mu       sync.Mutex
	seen     map[droppedField]bool
	recorder recorder.EventRecorder // nil until Add
}

type droppedField struct {
	crd, path string
}

// WatchDroppedFields looks at all answers to requests that are made with the config.
func WatchDroppedFields(config *rest.Config, log logr.Logger) *DroppedFields {
	d := &DroppedFields{log: log, seen: map[droppedField]bool{}}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &warningReader{next, d} })
	return d
}

type warningReader struct {
	next http.RoundTripper
	to   *DroppedFields
}

// RoundTrip implements http.RoundTripper.
func (r *warningReader) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := r.next.RoundTrip(request)
	if err == nil && len(response.Header["Warning"]) > 0 {
		r.to.read(request.URL.Path, response.Header["Warning"])
	}
	return response, err
}

var (
	// unknownField is the text of the API server's warning.
	unknownField = regexp.MustCompile(`^unknown field "([^"]+)"$`)
	listIndex    = regexp.MustCompile(`\[[0-9]+\]`)
)

func (d *DroppedFields) read(path string, headers []string) {
	crd := crdOf(path)
	if crd == "" {
		return
	}
	warnings, _ := utilnet.ParseWarningHeaders(headers) // one that cannot be read is not the API server's
	for _, w := range warnings {
		if m := unknownField.FindStringSubmatch(w.Text); m != nil {
			d.report(droppedField{crd, listIndex.ReplaceAllString(m[1], "[]")})
		}
	}
}

// report counts a dropped field. It logs it and writes an Event on the CRD when it is seen first.
func (d *DroppedFields) report(f droppedField) {
	droppedFields.WithLabelValues(f.crd).Inc()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen[f] {
		return
	}
	d.seen[f] = true
	d.log.Info("A CRD is older than the controller: the API server drops a field. Apply the CRDs of this version", "crd", f.crd, "field", f.path)
	if d.recorder != nil {
		crd := &metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
			ObjectMeta: metav1.ObjectMeta{Name: f.crd},
		}
		d.recorder.Eventf(crd, nil, corev1.EventTypeWarning, "CRDTooOld", "Write",
			"The CRD is older than the controller: the API server drops the field %s. Apply the CRDs of the controller's version", f.path)
	}
}

func (d *DroppedFields) setRecorder(r recorder.EventRecorder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recorder = r
}

// crdOf returns the name of the CRD of ours that a request's path is about; empty: none.
func crdOf(path string) string {
	rest, ok := strings.CutPrefix(path, "/apis/"+v1alpha1.GroupVersion.Group+"/")
	if !ok {
		return ""
	}
	parts := strings.Split(rest, "/")[1:] // without the version
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	if len(parts) == 0 || parts[0] == "" {
		return ""
	}
	return parts[0] + "." + v1alpha1.GroupVersion.Group
}
