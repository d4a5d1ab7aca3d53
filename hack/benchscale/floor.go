package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
)

// The floor is the minimum for a controller that writes something about each pod: one informer, and one small
// write for each event. It has no rules, resolves nothing and compares nothing. Its cost is that of the
// machine and of the API server.

const (
	floorBuckets = 250
	floorWorkers = 16 // as many as the controller has
	floorLabel   = "benchscale"
)

// floorValue is what the floor writes about a pod.
func floorValue(address string, labels map[string]string) string {
	return address + " " + labels["app"] + " " + labels["tier"]
}

func floorBucket(key types.NamespacedName) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key.String()))
	return fmt.Sprintf("floor-%03d", h.Sum32()%floorBuckets)
}

// floorItem is one write of the floor's workers.
type floorItem struct {
	pod   types.NamespacedName
	value string // empty: the pod is gone
}

// runFloor is the floor's process.
func runFloor(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("floor", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "Of the API server.")
	probe := flags.String("health-probe-bind-address", "", "Where /readyz is.")
	_ = flags.String("metrics-bind-address", "", "Nothing is there.")
	_ = flags.String("stream-bind-address", "", "Nothing is there.")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.ContentType = -1, "application/vnd.kubernetes.protobuf"
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[floorItem]())
	defer queue.ShutDown()
	factory := informers.NewSharedInformerFactory(clients, 0)
	pods := factory.Core().V1().Pods().Informer()
	var began atomic.Bool // existing pods are not written
	put := func(obj any, gone bool) {
		pod, ok := obj.(*corev1.Pod)
		if !ok || !began.Load() || pod.Status.PodIP == "" {
			return
		}
		item := floorItem{pod: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}}
		if !gone {
			item.value = floorValue(pod.Status.PodIP, pod.Labels)
		}
		queue.Add(item)
	}
	handler, err := pods.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { put(obj, false) },
		UpdateFunc: func(_, obj any) { put(obj, false) },
		DeleteFunc: func(obj any) { put(obj, true) },
	})
	if err != nil {
		return err
	}
	for range floorWorkers {
		go floorWorker(ctx, clients, queue)
	}
	factory.Start(ctx.Done())
	if !toolscache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
		return nil
	}
	began.Store(true)
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Addr: *probe, Handler: ok, ReadHeaderTimeout: time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	_ = server.ListenAndServe()
	return nil
}

func floorWorker(ctx context.Context, clients *kubernetes.Clientset, queue workqueue.TypedRateLimitingInterface[floorItem]) {
	for {
		item, quit := queue.Get()
		if quit {
			return
		}
		patch, _ := json.Marshal(map[string]any{"data": map[string]string{item.pod.Namespace + "." + item.pod.Name: item.value}})
		_, err := clients.CoreV1().ConfigMaps(sharedNamespace).Patch(ctx, floorBucket(item.pod), types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil && ctx.Err() == nil {
			queue.AddRateLimited(item)
		} else {
			queue.Forget(item)
		}
		queue.Done(item)
	}
}

// floorObserver records when the floor has written a pod's change.
type floorObserver struct {
	mu      sync.Mutex
	waiting map[netip.Addr]floorChange
	took    durations
}

type floorChange struct {
	sent time.Time
	want floorItem
}

// prepare creates the ConfigMaps that the floor writes to.
func (o *floorObserver) prepare(ctx context.Context, c *cluster) error {
	return inParallel(ctx, floorBuckets, func(ctx context.Context, i int) error {
		_, err := c.clients.CoreV1().ConfigMaps(sharedNamespace).Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("floor-%03d", i), Labels: map[string]string{floorLabel: "floor"}},
		}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

func (o *floorObserver) watch(ctx context.Context, c *cluster) error {
	factory := informers.NewSharedInformerFactoryWithOptions(c.clients, 0, informers.WithNamespace(sharedNamespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = floorLabel + "=floor" }))
	handler, err := factory.Core().V1().ConfigMaps().Informer().AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		UpdateFunc: func(_, obj any) { o.see(obj.(*corev1.ConfigMap)) },
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !toolscache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
		return ctx.Err()
	}
	return nil
}

func (o *floorObserver) see(cm *corev1.ConfigMap) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for a, c := range o.waiting {
		value, ok := cm.Data[c.want.pod.Namespace+"."+c.want.pod.Name]
		if ok && value == c.want.value {
			o.took = append(o.took, time.Since(c.sent))
			delete(o.waiting, a)
		}
	}
}

func (o *floorObserver) expect(before, after *pod) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if after == nil {
		o.waiting[before.address] = floorChange{time.Now(), floorItem{pod: before.key()}}
	} else {
		o.waiting[after.address] = floorChange{time.Now(), floorItem{after.key(), floorValue(after.address.String(), after.labels)}}
	}
	return 1
}

func (o *floorObserver) outstanding() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.waiting)
}

func (o *floorObserver) take() durations {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.took
	o.took = nil
	return out
}
