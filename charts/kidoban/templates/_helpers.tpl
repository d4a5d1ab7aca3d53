{{/* The image of a half: include "kidoban.image" (list . "agent") */}}
{{- define "kidoban.image" -}}
{{- $image := (index . 0).Values.image }}
{{- $half := index . 1 }}
{{- $digest := index $image.digests $half }}
{{- printf "%s/%s" $image.registry $half }}
{{- if $digest }}@{{ $digest }}{{ else }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "kidoban.metricsPort" -}}
{{ .Values.agent.ports.metrics | default (ternary 9162 8162 .Values.eks) }}
{{- end }}

{{- define "kidoban.healthPort" -}}
{{ .Values.agent.ports.health | default (ternary 9163 8163 .Values.eks) }}
{{- end }}

{{/* The agent's settings, as JSON. A setting is there only where it differs from the program's default or is worth being seen. */}}
{{- define "kidoban.agentSettings" -}}
{{- $settings := dict
  "ENFORCING_MODE" .Values.mode
  "AUDIT" (toString .Values.audit)
  "ENABLE_POLICY_EVENT_LOGS" "denied"
  "EVENT_LOG_FILE" "/var/log/kidoban/flow.log" }}
{{- $metrics := include "kidoban.metricsPort" . }}
{{- $health := include "kidoban.healthPort" . }}
{{- if or (ne $metrics "8162") (ne $health "8163") }}
{{- $_ := set $settings "METRICS_BIND_ADDRESS" (printf ":%s" $metrics) }}
{{- $_ := set $settings "HEALTH_PROBE_BIND_ADDRESS" (printf "127.0.0.1:%s" $health) }}
{{- end }}
{{- if not .Values.nri }}{{ $_ := set $settings "NRI_SOCKET" "" }}{{ end }}
{{- if .Values.vpcCNI }}{{ $_ := set $settings "VPC_CNI_SOCKET" "/var/run/aws-node/npa.sock" }}{{ end }}
{{- if .Values.bootGuard }}{{ $_ := set $settings "GUARD_BOOT" "true" }}{{ end }}
{{- if .Values.startupTaint }}{{ $_ := set $settings "REMOVE_STARTUP_TAINT" "true" }}{{ end }}
{{- if .Values.secureMetrics }}{{ $_ := set $settings "SECURE_METRICS" "true" }}{{ end }}
{{- if .Values.observer.enabled }}{{ $_ := set $settings "OBSERVER" "true" }}{{ end }}
{{- if .Values.cloudWatch.enabled }}
{{- $_ := set $settings "ENABLE_CLOUDWATCH_LOGS" "true" }}
{{- $_ := set $settings "CLUSTER_NAME" .Values.cloudWatch.clusterName }}
{{- end }}
{{- merge (deepCopy .Values.agent.settings) $settings | toJson }}
{{- end }}

{{/* The controller's settings, as JSON. */}}
{{- define "kidoban.controllerSettings" -}}
{{- $settings := dict "LEADER_ELECT" "true" }}
{{- if .Values.eks }}{{ $_ := set $settings "TRUSTED_RESOLVERS" "169.254.169.253,fd00:ec2::253" }}{{ end }}
{{- if .Values.secureMetrics }}{{ $_ := set $settings "SECURE_METRICS" "true" }}{{ end }}
{{- merge (deepCopy .Values.controller.settings) $settings | toJson }}
{{- end }}

{{/* The observer's settings, as JSON. */}}
{{- define "kidoban.observerSettings" -}}
{{- $settings := dict "MAX_BYTES" "4294967296" }}
{{- if .Values.secureMetrics }}{{ $_ := set $settings "SECURE_METRICS" "true" }}{{ end }}
{{- merge (deepCopy .Values.observer.settings) $settings | toJson }}
{{- end }}

{{/*
The name of a ConfigMap of settings ends in a hash of its content, so that a change rolls the pods. It is kustomize's hash, which
leaves the name empty: pods stay as they are when a cluster moves between kustomize and Helm. include "kidoban.settingsName" (list NAME SETTINGS)
*/}}
{{- define "kidoban.settingsName" -}}
{{- $name := index . 0 }}
{{- $hash := dict "kind" "ConfigMap" "name" "" "data" (index . 1 | fromJson) | toJson | sha256sum | trunc 10 }}
{{- $name }}-{{ $hash | replace "0" "g" | replace "1" "h" | replace "3" "k" | replace "a" "m" | replace "e" "t" }}
{{- end }}

{{/* The name of the ConfigMap that a half reads: include "kidoban.settingsOf" (list . "agent") */}}
{{- define "kidoban.settingsOf" -}}
{{- $half := index . 1 }}
{{- include "kidoban.settingsName" (list (printf "kidoban-%s-settings" $half) (include (printf "kidoban.%sSettings" $half) (index . 0))) }}
{{- end }}
