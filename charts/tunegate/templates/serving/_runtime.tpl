{{/* A runtime's name; takes (list $ VALUES PREFIX). A new image, grace, Secret or kind of log has a new name: KServe restarts
every server of a runtime that changes. */}}
{{- define "tunegate.runtimeName" -}}
{{- $root := index . 0 -}}
{{- $image := (index . 1).image -}}
{{- index . 2 }}-{{ regexReplaceAll "[^a-z0-9]+" (lower $root.Chart.Version) "-" -}}
{{- with $image.digest | default $image.tag }}-{{ . | sha256sum | trunc 8 }}{{ end -}}
{{- if ne (int $root.Values.serving.graceSeconds) 60 }}-{{ $root.Values.serving.graceSeconds }}s{{ end -}}
{{- with $root.Values.serving.keysSecret }}-{{ . | sha256sum | trunc 8 }}{{ end -}}
{{- with $root.Values.serving.toolsSecret }}-t{{ . | sha256sum | trunc 7 }}{{ end -}}
{{- if eq (toString $root.Values.serving.logContent) "false" }}-numbers{{ end -}}
{{- end -}}

{{/* A runtime for KServe: one in each namespace where the release may not reach further. Takes (list $ NAME SPEC). */}}
{{- define "tunegate.servingRuntime" -}}
{{- $root := index . 0 }}
{{- if eq $root.Values.rbac.scope "Cluster" }}
{{- include "tunegate.runtimeObject" (list $root "ClusterServingRuntime" "" (index . 1) (index . 2)) }}
{{- else }}
{{- range include "tunegate.namespaces" $root | fromJsonArray }}
{{- include "tunegate.runtimeObject" (list $root "ServingRuntime" . (index $ 1) (index $ 2)) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "tunegate.runtimeObject" }}
---
apiVersion: serving.kserve.io/v1alpha1
kind: {{ index . 1 }}
metadata:
  name: {{ index . 3 }}
  {{- with index . 2 }}
  namespace: {{ . | quote }}
  {{- end }}
  labels:
    {{- include "tunegate.labels" (list (index . 0) "predictor") | nindent 4 }}
  annotations:
    # Servers of before run on with it.
    helm.sh/resource-policy: keep
spec:
  {{- index . 4 | nindent 2 }}
{{- end }}

{{/* The runtimes that this release made before, as they are: servers use them. Takes (list $ NAMES), those of today. */}}
{{- define "tunegate.runtimesOfBefore" -}}
{{- $root := index . 0 }}
{{- $names := index . 1 }}
{{- $scopes := list "" }}
{{- $kind := "ClusterServingRuntime" }}
{{- if ne $root.Values.rbac.scope "Cluster" }}
{{- $scopes = include "tunegate.namespaces" $root | fromJsonArray }}
{{- $kind = "ServingRuntime" }}
{{- end }}
{{- range $namespace := $scopes }}
{{- range (lookup "serving.kserve.io/v1alpha1" $kind $namespace "").items }}
{{- $owner := .metadata.annotations | default dict }}
{{- $isOurs := and (eq (get $owner "meta.helm.sh/release-name") $root.Release.Name) (eq (get $owner "meta.helm.sh/release-namespace") $root.Release.Namespace) }}
{{- if and $isOurs (not (has .metadata.name $names)) }}
{{- include "tunegate.runtimeObject" (list $root $kind $namespace .metadata.name (toYaml .spec)) }}
{{- end }}
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
    image: {{ include "tunegate.image" (list $root $values.image) | quote }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy | quote }}
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
      - {name: TUNEGATE_GRACE_SECONDS, value: {{ sub $root.Values.serving.graceSeconds 5 | quote }}}
      {{- with $root.Values.store.region }}
      - {name: AWS_DEFAULT_REGION, value: {{ . | quote }}}
      {{- end }}
      {{- if eq (toString $root.Values.serving.logContent) "false" }}
      - {name: TUNEGATE_LOG_CONTENT, value: "false"}
      {{- end }}
      {{- if $root.Values.serving.keysSecret }}
      - {name: TUNEGATE_KEYS, value: /etc/tunegate/keys.yaml}
      {{- end }}
      {{- if eq $engine "vllm" }}
      # torch asks for the user's name, and the image knows no user 10001.
      - {name: USER, value: tunegate}
      {{- end }}
    {{- with $root.Values.serving.toolsSecret }}
    envFrom:
      - secretRef: {name: {{ . | quote }}}
    {{- end }}
    ports:
      # KServe knows HTTP by this name.
      - name: http1
        containerPort: 8080
        protocol: TCP
    # A gateway learns some seconds late that a pod goes; what it sends until then is answered. Counts as grace.
    lifecycle:
      preStop:
        sleep: {seconds: 5}
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
    # Without resources: the operator writes a policy's, or those of these values, and KServe would merge both.
    securityContext:
      {{- include "tunegate.containerSecurity" $root | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      - {name: cache, mountPath: /cache}
      {{- if $root.Values.serving.keysSecret }}
      # As a folder: a file mounted by subPath would never change.
      - {name: keys, mountPath: /etc/tunegate, readOnly: true}
      {{- end }}
      {{- if eq $engine "vllm" }}
      - {name: shm, mountPath: /dev/shm}
      {{- end }}
volumes:
  - {name: tmp, emptyDir: {}}
  - {name: cache, emptyDir: {}}
  {{- with $root.Values.serving.keysSecret }}
  - name: keys
    secret: {secretName: {{ . | quote }}}
  {{- end }}
  {{- if eq $engine "vllm" }}
  # Engines on several GPUs talk to each other through it.
  - {name: shm, emptyDir: {medium: Memory}}
  {{- end }}
{{- end -}}
