{{/* A runtime for KServe: one in each namespace where the release may not reach further. Takes (list $ NAME SPEC). */}}
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

{{/* Our server with one engine; takes (list $ VALUES ENGINE). The operator adds the model's name, store and feedback key. */}}
{{- define "tunegate.runtimeSpec" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
{{- $engine := index . 2 -}}
annotations:
  prometheus.kserve.io/port: "8080"
  prometheus.kserve.io/path: /metrics
supportedModelFormats:
  - name: tunegate
    version: "1"
    autoSelect: false
protocolVersions: [v1, v2]
{{- include "tunegate.pullSecrets" $root }}
containers:
  - name: kserve-container
    image: {{ include "tunegate.image" (list $root $values.image) }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args:
      - serve
      - --folder=/mnt/models
      - --host=0.0.0.0
      - --port=8080
      - --engine={{ $engine }}
    env:
      - {name: HOME, value: /tmp}
      - {name: HF_HUB_OFFLINE, value: "1"}
      - {name: OMP_WAIT_POLICY, value: PASSIVE}
      - {name: TUNEGATE_CACHE, value: /cache}
      - {name: AWS_DEFAULT_REGION, value: {{ $root.Values.store.region | quote }}}
      {{- if eq $engine "vllm" }}
      # torch asks for the user's name, and the image knows no user 10001.
      - {name: USER, value: tunegate}
      {{- end }}
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
      {{- toYaml $values.resources | nindent 6 }}
    securityContext:
      {{- include "tunegate.containerSecurity" $root | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      - {name: cache, mountPath: /cache}
      {{- if eq $engine "vllm" }}
      - {name: shm, mountPath: /dev/shm}
      {{- end }}
volumes:
  - {name: tmp, emptyDir: {}}
  - {name: cache, emptyDir: {}}
  {{- if eq $engine "vllm" }}
  # Engines on several GPUs talk to each other through it.
  - {name: shm, emptyDir: {medium: Memory}}
  {{- end }}
{{- end -}}
