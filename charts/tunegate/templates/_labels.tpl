{{/* Labels of every object; takes (list $ COMPONENT). */}}
{{- define "tunegate.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{ include "tunegate.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tunegate
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end -}}

{{/* What selectors use: nothing that changes from one chart version to the next. */}}
{{- define "tunegate.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: tunegate
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}
