package certificates

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
)

// period is how often the Secret and the ConfigMap are read.
const period = 30 * time.Second

// Keeper gives each replica the certificate of the Secret. The leader also rotates it and publishes the
// authorities in the ConfigMap. Both objects come with the manifests: the program may not create any. Without a
// leader all replicas may rotate: the API server lets one of them write.
type Keeper struct {
	Issuer
	// Secret and ConfigMap are the names of the two objects.
	Secret, ConfigMap string
	Secrets           coreclient.SecretInterface
	ConfigMaps        coreclient.ConfigMapInterface
	// Leading is closed when this replica leads, or if there is no leader.
	Leading <-chan struct{}
	Log     logr.Logger

	certificate atomic.Pointer[tls.Certificate]
}

// Certificate returns the certificate for a handshake.
func (k *Keeper) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := k.certificate.Load(); c != nil {
		return c, nil
	}
	return nil, errors.New("there is no certificate yet")
}

// Expires returns when the certificate expires that is used; zero if there is none.
func (k *Keeper) Expires() time.Time {
	if c := k.certificate.Load(); c != nil {
		return c.Leaf.NotAfter
	}
	return time.Time{}
}

// NeedLeaderElection is false: followers serve, too.
func (k *Keeper) NeedLeaderElection() bool { return false }

// Start keeps the certificate until the context is done. Errors end nothing: no packet depends on the certificate.
func (k *Keeper) Start(ctx context.Context) error {
	last, leading := "", k.Leading
	for {
		var reason string
		if err := k.keep(ctx, time.Now()); err != nil {
			reason = err.Error()
		}
		if reason != last && reason != "" && ctx.Err() == nil {
			k.Log.Info("Cannot keep the certificate of the server that agents connect to; they work without it", "reason", reason)
		}
		last = reason
		next := wait.Jitter(period, 0.1)
		if k.certificate.Load() == nil {
			next = time.Second
		}
		select {
		case <-ctx.Done():
			return nil
		case <-leading:
			leading = nil
		case <-time.After(next):
		}
	}
}

func (k *Keeper) isLeading() bool {
	select {
	case <-k.Leading:
		return true
	default:
		return false
	}
}

func (k *Keeper) keep(ctx context.Context, now time.Time) error {
	secret, err := k.Secrets.Get(ctx, k.Secret, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the Secret %s: %w", k.Secret, err)
	}
	bundle, broken := Parse(secret.Data) // a broken one is replaced, like an empty one
	if !k.isLeading() {
		k.use(bundle, now)
		return broken
	}
	next, changed, err := k.Rotate(bundle, now)
	if err != nil {
		return err
	}
	if changed {
		if err := k.write(ctx, secret, next); err != nil {
			k.use(bundle, now)
			return err
		}
	}
	// The authorities first: an agent that reads them later than the handshake connects again.
	err = k.publish(ctx, next.Authorities())
	k.use(next, now)
	return err
}

func (k *Keeper) use(b Bundle, now time.Time) {
	if c := k.Usable(b, now); c != nil {
		k.certificate.Store(c)
	}
}

func (k *Keeper) write(ctx context.Context, secret *corev1.Secret, b Bundle) (err error) {
	if secret.Data, err = b.Data(); err != nil {
		return err
	}
	if _, err = k.Secrets.Update(ctx, secret, metav1.UpdateOptions{}); apierrors.IsConflict(err) {
		return fmt.Errorf("another replica wrote the Secret %s: %w", k.Secret, err)
	} else if err != nil {
		return fmt.Errorf("write the Secret %s: %w", k.Secret, err)
	}
	k.Log.Info("Renewed the certificate of the server that agents connect to", "until", b.leaf.Leaf.NotAfter)
	return nil
}

// publish makes the ConfigMap contain the authorities.
func (k *Keeper) publish(ctx context.Context, authorities []byte) error {
	object, err := k.ConfigMaps.Get(ctx, k.ConfigMap, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the ConfigMap %s: %w", k.ConfigMap, err)
	}
	if bytes.Equal([]byte(object.Data[keyAuthorities]), authorities) {
		return nil
	}
	object.Data = map[string]string{keyAuthorities: string(authorities)}
	if _, err := k.ConfigMaps.Update(ctx, object, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write the ConfigMap %s: %w", k.ConfigMap, err)
	}
	return nil
}
