{{/* KServe: a ServingRuntime in each namespace where the operator may not see the whole cluster. Takes (list $ NAME SPEC). */}}
{{- define "tunegate.servingRuntime" -}}
{{- $root := index . 0 }}
{{- $name := index . 1 }}
{{- $spec := index . 2 }}
{{- if eq $root.Values.rbac.scope "Cluster" }}
---
apiVersion: serving.kserve.io/v1alpha1
kind: ClusterServingRuntime
metadata:
  name: {{ $name }}
  labels:
    {{- include "tunegate.labels" (list $root "predictor") | nindent 4 }}
spec:
  {{- $spec | nindent 2 }}
{{- else }}
{{- range include "tunegate.namespaces" $root | fromJsonArray }}
---
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata:
  name: {{ $name }}
  namespace: {{ . }}
  labels:
    {{- include "tunegate.labels" (list $root "predictor") | nindent 4 }}
spec:
  {{- $spec | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What the two runtimes share of the spec. */}}
{{- define "tunegate.runtimeHead" -}}
annotations:
  prometheus.kserve.io/port: "8080"
  prometheus.kserve.io/path: /metrics
supportedModelFormats:
  - name: tunegate
    version: "1"
    autoSelect: false
protocolVersions: [v1, v2]
{{- include "tunegate.pullSecrets" . }}
{{- end -}}

{{/* Our server's container; takes (list $ MORE-ARGUMENTS). The operator adds the model's name, the store and the feedback key. */}}
{{- define "tunegate.predictorContainer" -}}
{{- $root := index . 0 -}}
name: kserve-container
image: {{ include "tunegate.image" (list $root $root.Values.serving.image) }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args:
  - serve
  - --folder=/mnt/models
  - --host=0.0.0.0
  - --port=8080
  {{- range index . 1 }}
  - {{ . }}
  {{- end }}
env:
  - {name: HOME, value: /tmp}
  - {name: HF_HUB_OFFLINE, value: "1"}
  - {name: OMP_WAIT_POLICY, value: PASSIVE}
  - {name: TUNEGATE_CACHE, value: /cache}
  - {name: AWS_DEFAULT_REGION, value: {{ $root.Values.store.region | quote }}}
ports:
  # KServe knows HTTP by this name.
  - name: http1
    containerPort: 8080
    protocol: TCP
startupProbe:
  httpGet: {path: /v2/health/ready, port: 8080}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 360
readinessProbe:
  httpGet: {path: /v2/health/ready, port: 8080}
  periodSeconds: 5
  timeoutSeconds: 5
livenessProbe:
  httpGet: {path: /v2/health/live, port: 8080}
  periodSeconds: 20
  timeoutSeconds: 10
resources:
  {{- toYaml $root.Values.serving.resources | nindent 2 }}
securityContext:
  {{- include "tunegate.containerSecurity" $root | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: cache, mountPath: /cache}
{{- end -}}
