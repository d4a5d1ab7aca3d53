package startup

import (
	uberzap "go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// SetLogger makes one logger of these options that of the process: of our own code, of controller-runtime and, as klog's, of client-go.
func SetLogger(o *zap.Options) {
	log := zap.New(zap.UseFlagOptions(o))
	ctrl.SetLogger(log)
	klog.SetLogger(log.WithName("client-go"))
}

// LogOptions are the defaults of the --zap flags: one line for one thing that happened. An error that an operator can mend needs no stack trace.
func LogOptions() zap.Options {
	return zap.Options{
		StacktraceLevel: zapcore.PanicLevel,
		ZapOpts:         []uberzap.Option{uberzap.WrapCore(func(c zapcore.Core) zapcore.Core { return quiet{c} })},
	}
}

// healthLogger logs every probe that fails, for as long as a kubelet asks. What is wrong is logged once, by who finds it.
const healthLogger = "controller-runtime.healthz"

type quiet struct{ zapcore.Core }

func (q quiet) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if e.LoggerName == healthLogger {
		return ce
	}
	return q.Core.Check(e, ce)
}

func (q quiet) With(fields []zapcore.Field) zapcore.Core { return quiet{q.Core.With(fields)} }
