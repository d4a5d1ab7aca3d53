package streamserver

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limiters are rate limiters by key, such as by node. One that has recovered is like one that is made anew, so it can be forgotten.
type Limiters[K comparable] struct {
	limit rate.Limit
	burst int
	most  int

	mu  sync.Mutex // guards all
	all map[K]*rate.Limiter
}

// NewLimiters makes Limiters that allow each key so many events a second, and so many at once. There are at most so many: one more makes all others
// forgotten; 0 for no bound.
func NewLimiters[K comparable](limit rate.Limit, burst, most int) *Limiters[K] {
	return &Limiters[K]{limit: limit, burst: burst, most: most, all: map[K]*rate.Limiter{}}
}

// Of returns the limiter of a key.
func (l *Limiters[K]) Of(key K) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter, ok := l.all[key]
	if !ok {
		if l.most > 0 && len(l.all) >= l.most {
			clear(l.all)
		}
		limiter = rate.NewLimiter(l.limit, l.burst)
		l.all[key] = limiter
	}
	return limiter
}

// Forget forgets the limiters that have recovered, but for those of keys to keep; nil for none.
func (l *Limiters[K]) Forget(now time.Time, keep func(K) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, limiter := range l.all {
		if limiter.TokensAt(now) >= float64(l.burst) && (keep == nil || !keep(key)) {
			delete(l.all, key)
		}
	}
}
