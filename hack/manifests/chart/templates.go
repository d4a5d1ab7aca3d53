package main

// image is the line of a half's image, with what follows it, and the pod's pull secrets before its containers.
func image(half string) []edit {
	return []edit{
		{"        image: kidoban.dev/" + half + "\n", `        image: {{ include "kidoban.image" (list . "` + half + `") }}
        {{- with .Values.image.pullPolicy }}
        imagePullPolicy: {{ . }}
        {{- end }}
`},
		{"      containers:\n", `      {{- with .Values.image.pullSecrets }}
      imagePullSecrets:
      {{- toYaml . | nindent 6 }}
      {{- end }}
      containers:
`},
		{"            name: kidoban-" + half + "-settings\n", `            name: {{ include "kidoban.settingsOf" (list . "` + half + `") }}
`},
	}
}

func resources(half, from string) edit {
	return edit{from, "        resources:\n          {{- toYaml .Values." + half + ".resources | nindent 10 }}\n"}
}

// secure is what the component secure-metrics adds to an endpoint of a monitor, at the indentation of its list.
const secure = `    {{- if .Values.secureMetrics }}
    scheme: https
    bearerTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
    tlsConfig:
      insecureSkipVerify: true
    {{- end }}
`

// monitor changes a monitor of the Prometheus operator.
var monitor = edit{"    interval: 30s\n", "    interval: 30s\n" + secure}

var monitorLabels = edit{"    app.kubernetes.io/part-of: kidoban\nspec:\n", `    app.kubernetes.io/part-of: kidoban
    {{- with .Values.prometheus.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
`}

var templates = []template{
	{name: "agent-daemonset.yaml", from: []string{"agent/daemonset.yaml"}, edits: append(image("agent"),
		edit{"    type: RollingUpdate\n    rollingUpdate:\n", `    {{- if eq .Values.agent.updateStrategy "OnDelete" }}
    type: OnDelete
    {{- else }}
    type: RollingUpdate
    rollingUpdate:
`},
		edit{"      maxUnavailable: 10%\n", "      maxUnavailable: {{ .Values.agent.maxUnavailable }}\n    {{- end }}\n"},
		edit{"        kubectl.kubernetes.io/default-container: agent\n", `        kubectl.kubernetes.io/default-container: agent
        {{- if .Values.bootGuard }}
        tolerate-missing-plugins.kidoban.dev: "true"
        {{- end }}
`},
		edit{"      hostNetwork: true #", `      {{- if .Values.eks }}
      # Fargate nodes run no DaemonSets, Hybrid Nodes run another CNI, and Auto Mode nodes have a policy engine of their own.
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
            - matchExpressions:
              - key: eks.amazonaws.com/compute-type
                operator: NotIn
                values: [fargate, hybrid, auto]
      {{- end }}
      hostNetwork: true #`},
		edit{"          containerPort: 8162\n", "          containerPort: {{ include \"kidoban.metricsPort\" . }}\n"},
		edit{"          containerPort: 8163\n", "          containerPort: {{ include \"kidoban.healthPort\" . }}\n"},
		resources("agent", "        resources:\n          requests:\n            cpu: 50m\n            memory: 64Mi\n          limits:\n            memory: 1536Mi\n"),
		edit{"        volumeMounts:\n", `        volumeMounts:
        {{- if .Values.vpcCNI }}
        - name: vpc-cni
          mountPath: /var/run/aws-node
        {{- end }}
`},
		edit{"        - name: nri\n          mountPath: /run/nri\n", `        {{- if .Values.nri }}
        - name: nri
          mountPath: /run/nri
        {{- end }}
`},
		edit{"      volumes:\n", `      volumes:
      {{- if .Values.vpcCNI }}
      - name: vpc-cni
        hostPath:
          path: /var/run/aws-node
          type: DirectoryOrCreate
      {{- end }}
`},
		edit{"      - name: nri\n        hostPath:\n          path: /run/nri\n          type: DirectoryOrCreate\n", `      {{- if .Values.nri }}
      - name: nri
        hostPath:
          path: /run/nri
          type: DirectoryOrCreate
      {{- end }}
`},
	)},
	{name: "controller-deployment.yaml", from: []string{"controller/deployment.yaml"}, edits: append(image("controller"),
		edit{"  replicas: 2 #", "  replicas: {{ .Values.controller.replicas }} #"},
		edit{"        kubernetes.io/os: linux\n", `        kubernetes.io/os: linux
        {{- with .Values.controller.nodeSelector }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
`},
		edit{"        effect: NoSchedule\n", `        effect: NoSchedule
      {{- with .Values.controller.tolerations }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
`},
		resources("controller", "        resources:\n          requests:\n            cpu: 100m\n            memory: 128Mi\n          limits:\n            memory: 1Gi\n"),
	)},
	{name: "controller.yaml", from: []string{"controller/pod_disruption_budget.yaml", "controller/certificates.yaml"}},
	{name: "controller-policy-endpoint.yaml", when: `eq .Values.mode "strict"`, from: []string{"components/strict/controller_policy_endpoint.yaml"}},
	{name: "agent-rbac.yaml", from: []string{
		"rbac/agent_service_account.yaml", "rbac/agent_role.yaml", "rbac/agent_role_binding.yaml", "rbac/agent_authority_role.yaml", "rbac/agent_authority_role_binding.yaml",
	}, edits: []edit{{"kind: ServiceAccount\nmetadata:\n", `kind: ServiceAccount
metadata:
  {{- with .Values.agent.serviceAccountAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
`}}},
	{name: "controller-rbac.yaml", from: []string{
		"rbac/controller_service_account.yaml", "rbac/role.yaml", "rbac/role_binding.yaml", "rbac/leader_election_role.yaml", "rbac/leader_election_role_binding.yaml",
		"rbac/certificates_role.yaml", "rbac/certificates_role_binding.yaml",
	}},
	{name: "observer-deployment.yaml", when: ".Values.observer.enabled", from: []string{"components/observer/deployment.yaml"}, edits: append(image("observer"),
		edit{"  replicas: 1 #", "  replicas: {{ .Values.observer.replicas }} #"},
		edit{"    type: RollingUpdate\n    rollingUpdate:\n      maxSurge: 1\n      maxUnavailable: 0\n", `    {{- if .Values.observer.volumeClaim }}
    type: Recreate # the next pod needs the volume
    {{- else }}
    type: RollingUpdate
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
    {{- end }}
`},
		resources("observer", "        resources:\n          requests:\n            cpu: 100m\n            memory: 256Mi\n          limits:\n            memory: 1Gi\n"),
		edit{"      - name: flows # lost with the pod; docs/observer.md has a volume that stays\n        emptyDir:\n          sizeLimit: 6Gi # --max-bytes, and the room in which it rolls up\n", `      - name: flows
        {{- if .Values.observer.volumeClaim }}
        persistentVolumeClaim:
          claimName: {{ .Values.observer.volumeClaim }}
        {{- else }}
        emptyDir:
          sizeLimit: 6Gi # --max-bytes, and the room in which it rolls up
        {{- end }}
`},
	)},
	{name: "observer.yaml", when: ".Values.observer.enabled", from: []string{
		"components/observer/service.yaml", "components/observer/certificates.yaml", "components/observer/rbac.yaml", "components/observer/reader_role.yaml",
		"components/observer/network_policy.yaml",
	}},
	{name: "observer-ui.yaml", when: "and .Values.observer.enabled .Values.observer.settings.UI_URL", from: []string{"components/observer-ui/rbac.yaml"}},
	{name: "observer-pod-events.yaml", when: `and .Values.observer.enabled (eq (toString .Values.observer.settings.POD_EVENTS) "true")`, from: []string{
		"components/observer-pod-events/role.yaml", "components/observer-pod-events/role_binding.yaml",
	}},
	{name: "viewer.yaml", from: []string{"rbac/viewer.yaml"}},
	{name: "startup-taint.yaml", when: ".Values.startupTaint", from: []string{"components/startup-taint/role.yaml", "components/startup-taint/role_binding.yaml"}},
	{name: "boot-guard.yaml", when: ".Values.bootGuard", from: []string{"components/boot-guard/policy.yaml", "components/boot-guard/policy_binding.yaml"}},
	{name: "secure-metrics.yaml", when: ".Values.secureMetrics", from: []string{
		"components/secure-metrics/reader_role.yaml", "components/secure-metrics/reviewer_role_binding.yaml",
	}},
	{name: "prometheus-agent.yaml", when: ".Values.prometheus.enabled", from: []string{"prometheus/pod_monitor_agent.yaml"}, edits: []edit{monitor, monitorLabels}},
	{
		name: "prometheus-controller.yaml", when: ".Values.prometheus.enabled", from: []string{"prometheus/service_monitor_controller.yaml"},
		edits: []edit{monitor, monitorLabels},
	},
	{name: "prometheus-observer.yaml", when: ".Values.prometheus.enabled", from: []string{"prometheus/pod_monitor_observer.yaml"}, edits: []edit{monitorLabels}},
	{name: "prometheus-service.yaml", when: ".Values.prometheus.enabled", from: []string{"prometheus/service_controller.yaml"}},
}
