{{/*
Fills what the templates can't do without: a value that is null, or that values kept from an earlier chart
(`--reuse-values`) don't have. All else that is missing is nothing: no limits, no labels, no region. Each template begins
with it.
*/}}
{{- define "tunegate.values" -}}
{{- include "tunegate.fill" (list .Values (include "tunegate.needed" . | fromYaml)) -}}
{{- end -}}

{{/* Takes (list INTO FROM). Sets what INTO lacks, in place. */}}
{{- define "tunegate.fill" -}}
{{- $into := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- $found := index $into $key -}}
{{- if kindIs "invalid" $found -}}
{{- $_ := set $into $key $value -}}
{{- else if and (kindIs "map" $value) (not (hasSuffix "SecurityContext" $key)) -}}
{{- include "tunegate.fill" (list $found $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The defaults of these; a test holds them against values.yaml. */}}
{{- define "tunegate.needed" -}}
global: {}
caBundle: {key: ca.crt}
proxy: {}
podSecurityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
containerSecurityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
image: {pullPolicy: IfNotPresent}
crds: {install: true, keep: true}
rbac: {scope: Cluster, userRoles: true}
approvals: {verifyActor: true}
store: {create: false, secretKeys: {accessKeyId: AWS_ACCESS_KEY_ID, secretAccessKey: AWS_SECRET_ACCESS_KEY, sessionToken: AWS_SESSION_TOKEN}}
feedback: {secretName: tunegate-feedback, create: false}
records: {enabled: false, secretName: tunegate-records, create: true}
operator: {image: {repository: tunegate/operator}, replicas: 1, scanSeconds: 30, logLevel: info, serviceAccount: {create: true}}
evaluation: {image: {repository: tunegate/trainer}, serviceAccount: {create: false}}
traffic: {gatewayApi: true}
serving:
  enabled: true
  image: {repository: tunegate/predictor}
  graceSeconds: 60
  serviceAccount: {create: false}
  logContent: true
  checkNames: true
  vllm: {enabled: false, image: {repository: tunegate/predictor-vllm}}
  storageInitializer: {enabled: true, image: {repository: tunegate/storage-initializer}}
storage: {enabled: false, image: {repository: tunegate/trainer}, size: 20Gi}
monitoring:
  predictors: {enabled: false}
  trainers: {enabled: false}
  operator: {enabled: false}
  rules: {enabled: false}
  dashboard: {enabled: false}
  interval: 15s
networkPolicy: {enabled: false}
{{- end -}}
