{{/* What the objects of this release are called; the names that users and the operator rely on are fixed instead. */}}
{{- define "tunegate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- /* A Service's name begins with a letter and has no dot. */ -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- if not (regexMatch "^[a-z]" $release) -}}
{{- $release = printf "tunegate-%s" $release -}}
{{- else if not (contains "tunegate" $release) -}}
{{- $release = printf "%s-tunegate" $release -}}
{{- end -}}
{{- $release | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tunegate.operator" -}}{{ include "tunegate.fullname" . }}-operator{{- end -}}
{{- define "tunegate.storage" -}}{{ include "tunegate.fullname" . }}-storage{{- end -}}

{{/* The namespaces with promotion policies, as JSON: those of the values, else the release's own. */}}
{{- define "tunegate.namespaces" -}}
{{- .Values.namespaces | default (list .Release.Namespace) | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/*
Where PodMonitors are, as JSON: in each namespace with policies, and the training jobs beside them, since a Prometheus that
tenants share looks only into a monitor's own. One for all of them, beside the operator, where they are not known.
*/}}
{{- define "tunegate.monitorNamespaces" -}}
{{- if or .Values.namespaces (ne .Values.rbac.scope "Cluster") -}}
{{- include "tunegate.namespaces" . -}}
{{- else -}}
{{- list .Release.Namespace | toJson -}}
{{- end -}}
{{- end -}}

{{/* Where such a PodMonitor looks. */}}
{{- define "tunegate.namespaceSelector" -}}
{{- if not (or .Values.namespaces (ne .Values.rbac.scope "Cluster")) -}}
namespaceSelector: {any: true}
{{- end -}}
{{- end -}}

{{/* Where the chart puts Secrets: beside the operator and beside the policies. */}}
{{- define "tunegate.secretNamespaces" -}}
{{- append (.Values.namespaces | default list) .Release.Namespace | uniq | sortAlpha | toJson -}}
{{- end -}}

{{- define "tunegate.storeUri" -}}
{{- if .Values.store.uri -}}
{{- .Values.store.uri -}}
{{- else if .Values.storage.enabled -}}
s3://tunegate
{{- else -}}
{{- fail "Say where the models are: set store.uri to s3://BUCKET[/PREFIX], or storage.enabled=true for a store to try things out." -}}
{{- end -}}
{{- end -}}

{{- define "tunegate.endpointUrl" -}}
{{- if .Values.store.endpointUrl -}}
{{- .Values.store.endpointUrl -}}
{{- else if and .Values.storage.enabled (not .Values.store.uri) -}}
http://{{ include "tunegate.storage" . }}.{{ .Release.Namespace }}.svc:8333
{{- end -}}
{{- end -}}

{{- define "tunegate.operatorAccount" -}}
{{- if .Values.operator.serviceAccount.create -}}
{{- .Values.operator.serviceAccount.name | default (include "tunegate.operator" .) -}}
{{- else -}}
{{- .Values.operator.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* The service account of pods beside policies; takes (list $ VALUES COMPONENT). */}}
{{- define "tunegate.account" -}}
{{- $name := (index . 1).serviceAccountName | default "default" -}}
{{- if and (index . 1).serviceAccount.create (eq $name "default") -}}
{{- include "tunegate.fullname" (index . 0) }}-{{ index . 2 -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end -}}
