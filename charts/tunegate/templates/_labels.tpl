{{/* Labels of every object; takes (list $ COMPONENT) and, where there are more, a map of them. Ours win. */}}
{{- define "tunegate.labels" -}}
{{- $root := index . 0 -}}
{{- $ours := dict
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63)
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/part-of" "tunegate"
  "app.kubernetes.io/managed-by" $root.Release.Service
-}}
{{- $more := ternary (last .) dict (gt (len .) 2) -}}
{{- $labels := dict -}}
{{- range list $root.Values.commonLabels $more $ours (include "tunegate.selectorLabels" (list $root (index . 1)) | fromYaml) -}}
{{- range $name, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}{{- $_ := set $labels $name (toString $value) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $labels -}}
{{- end -}}

{{/* What selectors use: nothing that changes from one chart version to the next. */}}
{{- define "tunegate.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: tunegate
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}
